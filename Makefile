# SPDX-License-Identifier: GPL-2.0-only
#
# dirtytrack: "make help" lists what there is to make. Everything that is built goes
# to build/.

KDIR ?= /lib/modules/$(shell uname -r)/build
PREFIX ?= /usr/local
W ?= 1

RELEASE = $(shell sed -n 's/^.define UTS_RELEASE "\(.*\)"$$/\1/p' $(KDIR)/include/generated/utsrelease.h)
MODULE = build/modules/$(RELEASE)/dirtytrack.ko
MODULE_DIR = $(DESTDIR)/lib/modules/$(RELEASE)/updates

help:
	@echo 'dirtytrack: guest memory whose every CPU write is tracked'
	@echo
	@echo '  make demo         a live guest, tracked and copied, in the test host'
	@echo '  make check        all set-up, then build, unit tests and selftests on 6.1 and 6.12'
	@echo '  make check-full   the same with what takes longer, and on all kernels: 7, the'
	@echo '                    one for clouds, and one that checks itself'
	@echo '  make bench        dirtytrack beside every other way to track writes, in the test host'
	@echo '                    (on this machine: HERE=1; instructions instead of time: ICOUNT=1)'
	@echo '  make bench-migrate  a guest moved, beside the migration of QEMU and of QEMU 10'
	@echo '  make bench-replicate  a guest replicated 20 times a second, beside the same alone'
	@echo '  make vm-shell     a shell in the test host, with the module loaded (KERNEL=6.12)'
	@echo
	@echo '  make modules      dirtytrack.ko for a kernel (KDIR=/lib/modules/.../build)'
	@echo '  make tools        the dirtytrack command and libdirtytrack'
	@echo '  make doc          HTML of Documentation/ (with python3-sphinx)'
	@echo '  make install      the tools, and the module if it was built (PREFIX, DESTDIR, KDIR)'
	@echo '  make uninstall    undoes that'
	@echo '  make clean        removes what was built (not the kernels of the test host:'
	@echo '                    "make distclean" does)'

modules:
	@kmod/build $(KDIR) build/modules W=$(W)

tools:
	@$(MAKE) --no-print-directory -C tools

check:
	@selftests/check

check-full:
	@selftests/check -f

# kernel-doc is of the kernel's sources, which the test host's set-up unpacks.
doc:
	@tools/vm/setup ksrc
	@tools/vm/packages selftests/packages.txt
	@KSRC=$$(tools/vm/ksrc) sphinx-build -q -b html Documentation build/doc
	@echo 'build/doc/index.html'

KERNEL ?= 6.12

# What the demonstration and the shell need of the test host.
vm-ready:
	@tools/vm/setup host $(KERNEL)
	@tools/vm/packages tools/packages.txt tools/demo/packages.txt
	@tools/vm/build-in $(KERNEL) $(MAKE) --no-print-directory modules KDIR=$$(tools/vm/kdir $(KERNEL))
	@$(MAKE) --no-print-directory tools

demo: vm-ready
	@tools/demo/demo

# On the machine itself no kernel has to be fetched.
bench-ready:
	@tools/vm/packages tools/packages.txt tools/bench/packages.txt
	@$(MAKE) --no-print-directory -C tools bench
ifneq ($(HERE),)
	@$(MAKE) --no-print-directory modules
	@tools/bench/srcu/build $(KDIR) build/bench-srcu
else
	@tools/vm/setup host $(KERNEL)
	@tools/vm/build-in $(KERNEL) $(MAKE) --no-print-directory modules KDIR=$$(tools/vm/kdir $(KERNEL))
	@tools/vm/build-in $(KERNEL) tools/bench/srcu/build $$(tools/vm/kdir $(KERNEL)) build/bench-srcu
endif

bench: bench-ready
	@tools/bench/run $(if $(HERE),--here,-k $(KERNEL)) $(if $(ICOUNT),--icount) $(BENCH)

# With guests, in the test host, or here, as root, with the module loaded. QEMU 10 is
# measured where it can be had.
GUESTS_OUT = $(CURDIR)/build/$@
QEMU10 = $(CURDIR)/build/vm/qemu10/qemu-system-x86_64

bench-migrate: qemu10
bench-migrate: OPTIONS = $$([ ! -x $(QEMU10) ] || echo --qemu10 $(QEMU10))

qemu10: $(if $(HERE),tools,vm-ready)
	@[ -x $(QEMU10) ] || tools/vm/setup host || echo 'no QEMU 10: measured without'

bench-migrate bench-replicate: $(if $(HERE),tools,vm-ready)
	@$(MAKE) --no-print-directory -C tools bench
	@tools/demo/build-guest
	@mkdir -p $(GUESTS_OUT)
	@$(if $(HERE),,tools/vm/run -k $(KERNEL) -K -m 6G -t 3000 -l $(GUESTS_OUT) --) \
		tools/bench/$@ $(OPTIONS) --output $(GUESTS_OUT)/$(@:bench-%=%).json $(BENCH)

vm-shell: vm-ready
	@tools/vm/run -k $(KERNEL) -K -i -e PATH="$(CURDIR)/build/tools:$$PATH" -- bash -i

install:
	@$(MAKE) --no-print-directory -C tools install PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)
	@if [ -n "$(RELEASE)" ] && [ -e "$(MODULE)" ]; then \
		install -D -m 644 $(MODULE) $(MODULE_DIR)/dirtytrack.ko && \
		{ [ -n "$(DESTDIR)" ] || depmod $(RELEASE); }; \
	else \
		echo "no module built for $(KDIR): not installed (make modules builds it)"; \
	fi

uninstall:
	@$(MAKE) --no-print-directory -C tools uninstall PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)
	@if [ -n "$(RELEASE)" ]; then \
		rm -f $(MODULE_DIR)/dirtytrack.ko; \
		[ -n "$(DESTDIR)" ] || depmod $(RELEASE); \
	fi

clean:
	rm -rf build/modules build/tools build/tools-san build/selftests build/selftests-san build/unit build/static build/check build/doc build/bench build/bench-migrate build/bench-replicate build/bench-srcu

distclean:
	rm -rf build

.PHONY: help modules tools check check-full doc vm-ready demo bench-ready bench qemu10 bench-migrate bench-replicate vm-shell install uninstall clean distclean
