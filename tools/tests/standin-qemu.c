// SPDX-License-Identifier: GPL-2.0-only
/*
 * A stand-in for QEMU and a guest that checks itself, on memory of standin.c.
 *
 *	standin-qemu --ram PATH... | --slot PATH... [--qmp PATH]... [--rate PAGES] [--hot PAGES]
 *		[--zeroed N] [--save MICROSECONDS] [--console FILE] [--lock FILE]
 *		[--image FILE] [--fail COMMAND:HOW] [-incoming defer] [-S]
 *		[-chardev socket,id=ID,fd=N -mon ...]
 *
 * Several are one after the other in its memory.
 *
 * The guest keeps writing pages whose content follows from a stamp, and stamps of all
 * pages are in a table in its memory; how many it wrote, and the sum of the table, is
 * its "device state".  So memory that is not what it was when the state was saved does
 * not go unnoticed: the sum is wrong, or a page is not what the table says.  What it
 * finds goes to standard error, and it dies of it.
 *
 * With --slot the memory is a slot of the module, which need not be told of writes: this
 * is then a guest that takes no time of its own to be stopped and saved (--save 0, after
 * which it takes as long to say so).  A --rate of 0 is as fast as it can; of 16 pages that
 * are written, --zeroed N (2 unless given) become zero.  The console is that of
 * demo/workload.c, a line each second.
 *
 *	standin-qemu --check FILE
 *
 * checks what was such a guest's memory when it stood still.
 *
 * COMMAND is one of QMP, or "load", which is when the state is being loaded, or "loaded", when
 * that is done, but not said.  Of one that fails at "load" by "run", the state says that the
 * guest ran: without -S it does then.
 *
 * While it runs it holds a lock on FILE, which two guests on one host cannot both.  That of
 * an image is another, as QEMU has on what it may write to: it is taken at the beginning,
 * let go of when the state is saved, and taken when it is loaded, and by "cont", which is
 * refused without; a QEMU that quits has it for a while after it has said so.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#define PAGE 4096UL
#define WORDS (PAGE / 8)
#define STATE_BYTES (300 * 1024)

/* How long a QEMU with an image takes to quit. */
#define QUIT_US 300000

/* What QEMU would call the registers. */
struct state {
	uint64_t magic;
	uint64_t ticks;
	uint64_t sum;
	uint64_t seed;
	char padding[STATE_BYTES - 32];
};

#define MAGIC 0x454e494843414d

static struct state cpu;
static uint64_t *ram, npages, table_pages;
static int lock_fd = -1, image_fd = -1;
static bool autostart = true;
static uint64_t rate = 20000, hot, zeroed = 2;
static useconds_t save_time = 20000;
static FILE *console;
static const char *fail_command, *fail_how;

/* A slot of it. */
#define MAX_BANKS 4
static struct bank {
	const char *path;
	bool is_slot;
	char id[8];
	int fd, limit_fd;
	uint64_t first, npages;
	_Atomic uint64_t *dirty;	/* NULL for a slot of the module */
} banks[MAX_BANKS];
static int nr_banks;

static pthread_mutex_t big_lock = PTHREAD_MUTEX_INITIALIZER;
/* By monitors, whom the guest, which hardly ever lets go of it, has to let first. */
static atomic_int lock_wanted;
static pthread_cond_t resumed = PTHREAD_COND_INITIALIZER;
static bool running;
static const char *status = "running";
static const char *migration = "none";
static int passed_fd = -1;
static const char *why;

/* Who is connected to each monitor, or -1. */
#define MAX_MONITORS 4
static const char *monitor_paths[MAX_MONITORS];
static int listeners[MAX_MONITORS], nr_listeners;
static int monitors[MAX_MONITORS] = { -1, -1, -1, -1 };

static void die(const char *what)
{
	fprintf(stderr, "standin-qemu %d: %s\n", getpid(), what);
	_exit(3);
}

/* ---- the guest ---- */

static struct bank *bank_of(uint64_t page)
{
	int i = 0;

	while (page >= banks[i].first + banks[i].npages)
		i++;
	return &banks[i];
}

static void mark(uint64_t page)
{
	struct bank *b = bank_of(page);

	page -= b->first;
	if (b->dirty)
		atomic_fetch_or(&b->dirty[page / 64], UINT64_C(1) << page % 64);
}

static void punch_page(uint64_t page)
{
	struct bank *b = bank_of(page);

	fallocate(b->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		  (page - b->first) * PAGE, PAGE);
}

static uint64_t word_of(uint64_t page, uint64_t stamp, uint64_t i)
{
	return stamp ? (stamp * 0x9e3779b97f4a7c15 ^ page) + i : 0;
}

static void check_page(uint64_t page)
{
	const uint64_t *p = ram + page * WORDS;
	uint64_t i;

	for (i = 0; i < WORDS; i++)
		if (p[i] != word_of(page, ram[page - table_pages], i))
			die("a page is not what it was");
}

static void check_all(void)
{
	uint64_t sum = 0, page;

	for (page = table_pages; page < npages; page++) {
		sum += ram[page - table_pages];
		check_page(page);
	}
	if (sum != cpu.sum)
		die("the table is not what it was");
}

/* Of a file, without the sum, which is no part of it. */
static void check_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint64_t page;

	if (fd < 0 || fstat(fd, &st) < 0)
		die("no memory");
	npages = st.st_size / PAGE;
	table_pages = (npages + WORDS - 1) / WORDS;
	ram = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (ram == MAP_FAILED)
		die("cannot map memory");
	for (page = table_pages; page < npages; page++)
		check_page(page);
}

static uint64_t next_random(void)
{
	cpu.seed ^= cpu.seed << 13;
	cpu.seed ^= cpu.seed >> 7;
	cpu.seed ^= cpu.seed << 17;
	return cpu.seed;
}

static void set_page(uint64_t page, uint64_t stamp, bool punch)
{
	uint64_t *p = ram + page * WORDS, i;

	if (punch)
		punch_page(page);
	else
		for (i = 0; i < WORDS; i++)
			p[i] = word_of(page, stamp, i);
	mark(page);
	cpu.sum += stamp - ram[page - table_pages];
	ram[page - table_pages] = stamp;
	mark((page - table_pages) / WORDS);
}

static void tick(void)
{
	uint64_t data = npages - table_pages;
	uint64_t page, what = next_random() % 16;

	page = table_pages + next_random() % (hot && hot < data ? hot : data);
	check_page(page);
	cpu.ticks++;
	set_page(page, what >= zeroed ? cpu.ticks : 0, what < zeroed && what % 2);
}

/* Ticks that the log's limit allows in a turn: each makes two pages dirty. */
static uint64_t allowed(uint64_t batch)
{
	uint64_t limit = 0, part;
	int i;

	for (i = 0; i < nr_banks; i++) {
		if (pread(banks[i].limit_fd, &part, sizeof(part), 0) != sizeof(part) ||
		    !part)
			return batch;
		limit += part;
	}
	limit = limit / 400 + 1;
	return limit < batch ? limit : batch;
}

/* Each page is checked before it is written. */
static void print_tick(void)
{
	static time_t printed;
	static uint64_t lines;
	struct timespec now;

	if (!console)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec == printed)
		return;
	printed = now.tv_sec;
	fprintf(console, "tick %llu pages %llu checked %llu bad 0\n",
		(unsigned long long)++lines, (unsigned long long)cpu.ticks,
		(unsigned long long)cpu.ticks);
}

static void *run_guest(void *arg)
{
	for (;;) {
		const uint64_t batch = allowed(rate ? rate / 200 + 1 : 64);
		uint64_t i;

		pthread_mutex_lock(&big_lock);
		while (!running)
			pthread_cond_wait(&resumed, &big_lock);
		for (i = 0; i < batch; i++)
			tick();
		print_tick();
		pthread_mutex_unlock(&big_lock);
		if (rate)
			usleep(5000);
		while (lock_wanted)
			usleep(20);
	}
	return arg;
}

static void set_running(bool on)
{
	if (on == running)
		return;
	if (on && lock_fd >= 0 && flock(lock_fd, LOCK_EX | LOCK_NB) < 0)
		die("TWO GUESTS RUN");
	running = on;
	pthread_cond_signal(&resumed);
	if (!on && lock_fd >= 0)
		flock(lock_fd, LOCK_UN);
	status = on ? "running" : "paused";
	fprintf(stderr, "standin-qemu %d: %s at tick %llu\n", getpid(),
		on ? "runs" : "stands", (unsigned long long)cpu.ticks);
}

/* ---- its QEMU ---- */

static bool lock_image(void)
{
	return image_fd < 0 || !flock(image_fd, LOCK_EX | LOCK_NB);
}

static void unlock_image(void)
{
	if (image_fd >= 0)
		flock(image_fd, LOCK_UN);
}

static struct json_object *text(const char *key, const char *value)
{
	struct json_object *obj = json_object_new_object();

	json_object_object_add(obj, key, json_object_new_string(value));
	return obj;
}

static void send_message(int fd, struct json_object *obj)
{
	char *line;
	int n = asprintf(&line, "%s\r\n", json_object_to_json_string(obj));

	if (n > 0 && send(fd, line, n, MSG_NOSIGNAL) < 0)
		n = 0;
	free(line);
}

static void set_migration(const char *now)
{
	struct json_object *event = text("event", "MIGRATION");
	int i;

	migration = now;
	json_object_object_add(event, "data", text("status", now));
	for (i = 0; i < MAX_MONITORS; i++)
		if (monitors[i] >= 0)
			send_message(monitors[i], event);
	json_object_put(event);
}

/* What is to be done instead of @name, if it is that which is to fail; NULL if nothing. */
static const char *failure(const char *name)
{
	if (!fail_command || strcmp(name, fail_command))
		return NULL;
	fprintf(stderr, "standin-qemu %d: at %s\n", getpid(), name);
	if (!strcmp(fail_how, "die"))
		_exit(1);
	while (!strcmp(fail_how, "hang"))
		pause();
	/* By all together: the next one does it. */
	if (!strcmp(fail_how, "once"))
		return mkdir("failed", 0700) ? NULL : fail_how;
	/* Until the test has done what it does meanwhile. */
	while (!strcmp(fail_how, "slow") && access("go", F_OK))
		usleep(10000);
	return strcmp(fail_how, "slow") ? fail_how : NULL;
}

static int save(void)
{
	const char *from = (char *)&cpu;
	size_t left = sizeof(cpu);

	/* Saving may write to guest memory, and not at once. */
	pthread_mutex_lock(&big_lock);
	usleep(save_time);
	tick();
	pthread_mutex_unlock(&big_lock);
	while (left) {
		ssize_t n = write(passed_fd, from, left);

		if (n < 0)
			return -1;
		from += n;
		left -= n;
	}
	return 0;
}

static int load(void)
{
	static struct state loaded;
	char *to = (char *)&loaded;
	size_t left = sizeof(loaded);
	const char *how;

	while (left) {
		ssize_t n = read(passed_fd, to, left);

		if (n <= 0)
			return -1;
		to += n;
		left -= n;
	}
	how = failure("load");
	while (how && !strcmp(how, "stall"))
		pause();
	if (loaded.magic != MAGIC || (how && strcmp(how, "run")))
		return -1;
	pthread_mutex_lock(&big_lock);
	cpu = loaded;
	check_all();
	status = "paused";
	/* Without it, "cont" fails. */
	lock_image();
	if (how && autostart) {
		fprintf(stderr, "standin-qemu %d: lets it run unasked\n", getpid());
		set_running(true);
	}
	pthread_mutex_unlock(&big_lock);
	how = failure("loaded");
	while (how && !strcmp(how, "stall"))
		pause();
	return how ? -1 : 0;
}

/* Beside the monitor, as QEMU does. */
static void *migrate(void *arg)
{
	const bool out = arg != NULL;
	int ret = out ? save() : load();

	pthread_mutex_lock(&big_lock);
	close(passed_fd);
	passed_fd = -1;
	if (out && !ret)
		unlock_image();
	/* It gets there in two steps. */
	set_migration(ret ? "failed" : "completed");
	pthread_mutex_unlock(&big_lock);
	usleep(save_time);
	if (!out && ret)
		die("no guest came");
	pthread_mutex_lock(&big_lock);
	if (out)
		status = "postmigrate";
	pthread_mutex_unlock(&big_lock);
	return NULL;
}

static void start_migration(bool out)
{
	pthread_t thread;

	migration = "active";
	if (out)
		status = "finish-migrate";
	if (pthread_create(&thread, NULL, migrate, out ? &cpu : NULL))
		die("pthread_create");
	pthread_detach(thread);
}

static struct json_object *memdevs(void)
{
	struct json_object *list = json_object_new_array();
	int i;

	for (i = 0; i < nr_banks; i++) {
		struct json_object *dev = text("id", banks[i].id);

		json_object_object_add(dev, "share", json_object_new_boolean(true));
		json_object_array_add(list, dev);
	}
	return list;
}

/* The path of the memory whose object is asked for. */
static struct json_object *mem_path(struct json_object *command)
{
	struct json_object *args, *value;
	const char *id;
	int i;

	if (!json_object_object_get_ex(command, "arguments", &args) ||
	    !json_object_object_get_ex(args, "path", &value))
		return NULL;
	id = strrchr(json_object_get_string(value), '/');
	for (i = 0; id && i < nr_banks; i++)
		if (!strcmp(id + 1, banks[i].id))
			return json_object_new_string(banks[i].path);
	return NULL;
}

/* What it is set to, and says so if that is what matters. */
static void set_capabilities(struct json_object *command)
{
	struct json_object *args, *list, *cap, *name, *on;
	size_t i;

	if (!json_object_object_get_ex(command, "arguments", &args) ||
	    !json_object_object_get_ex(args, "capabilities", &list))
		return;
	for (i = 0; i < json_object_array_length(list); i++) {
		cap = json_object_array_get_idx(list, i);
		if (json_object_object_get_ex(cap, "capability", &name) &&
		    json_object_object_get_ex(cap, "state", &on) &&
		    !strcmp(json_object_get_string(name), "x-ignore-shared"))
			fprintf(stderr, "standin-qemu %d: x-ignore-shared %s\n", getpid(),
				json_object_get_boolean(on) ? "on" : "off");
	}
}

/* What the command returns; NULL when it fails, and @why, if that is known. */
static struct json_object *execute(const char *name, struct json_object *command)
{
	struct json_object *result;

	if (!strcmp(name, "query-status")) {
		result = text("status", status);
		json_object_object_add(result, "running",
				       json_object_new_boolean(running));
		return result;
	}
	if (!strcmp(name, "query-memdev"))
		return memdevs();
	if (!strcmp(name, "qom-get"))
		return mem_path(command);
	if (!strcmp(name, "query-migrate"))
		return text("status", migration);
	if (!strcmp(name, "stop"))
		set_running(false);
	else if (!strcmp(name, "cont") && !strcmp(status, "finish-migrate"))
		return NULL;
	else if (!strcmp(name, "cont") && !lock_image()) {
		why = "Failed to get \"write\" lock";
		return NULL;
	} else if (!strcmp(name, "cont"))
		set_running(true);
	else if (!strcmp(name, "migrate") && !strcmp(status, "postmigrate")) {
		why = "Can't migrate the vm that was paused due to previous migration";
		return NULL;
	} else if (!strcmp(name, "migrate"))
		start_migration(true);
	else if (!strcmp(name, "migrate-incoming"))
		start_migration(false);
	else if (!strcmp(name, "migrate-set-capabilities"))
		set_capabilities(command);
	else if (strcmp(name, "qmp_capabilities") && strcmp(name, "getfd") &&
		 strcmp(name, "migrate_cancel") && strcmp(name, "quit"))
		return NULL;
	return json_object_new_object();
}

static void answer(int fd, struct json_object *command)
{
	struct json_object *reply = json_object_new_object(), *value;
	struct json_object *result = NULL;
	const char *name = "", *how, *reason = "it fails";

	if (json_object_object_get_ex(command, "execute", &value))
		name = json_object_get_string(value);
	how = failure(name);
	if (!how) {
		lock_wanted++;
		pthread_mutex_lock(&big_lock);
		lock_wanted--;
		why = reason;
		result = execute(name, command);
		reason = why;
		pthread_mutex_unlock(&big_lock);
	} else if (!strcmp(how, "stall")) {
		/* It says that it does it. */
		result = json_object_new_object();
	}
	if (result)
		json_object_object_add(reply, "return", result);
	else
		json_object_object_add(reply, "error", text("desc", reason));
	if (json_object_object_get_ex(command, "id", &value))
		json_object_object_add(reply, "id", json_object_get(value));
	send_message(fd, reply);
	json_object_put(reply);
	/* After the answer, as QEMU. */
	if (!strcmp(name, "quit") && result) {
		if (image_fd >= 0)
			usleep(QUIT_US);
		_exit(0);
	}
}

static ssize_t receive(int fd, char *buf, size_t size)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { .iov_base = buf, .iov_len = size };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg;
	ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);

	cmsg = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
	if (cmsg && cmsg->cmsg_type == SCM_RIGHTS)
		memcpy(&passed_fd, CMSG_DATA(cmsg), sizeof(int));
	return n;
}

static void serve(int monitor, int fd)
{
	static const char greeting[] =
		"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";
	struct json_tokener *tok = json_tokener_new();
	char buf[4096];
	ssize_t n;

	monitors[monitor] = fd;
	if (send(fd, greeting, strlen(greeting), MSG_NOSIGNAL) < 0)
		n = 0;
	while ((n = receive(fd, buf, sizeof(buf))) > 0) {
		ssize_t pos = 0;

		while (pos < n) {
			struct json_object *obj =
				json_tokener_parse_ex(tok, buf + pos, n - pos);

			pos += json_tokener_get_parse_end(tok);
			if (!obj)
				break;
			answer(fd, obj);
			json_object_put(obj);
		}
	}
	json_tokener_free(tok);
	pthread_mutex_lock(&big_lock);
	monitors[monitor] = -1;
	pthread_mutex_unlock(&big_lock);
	close(fd);
}

static int listen_at(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	/* Who sees the name can connect. */
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s.new", path);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    listen(fd, 5) < 0 || rename(addr.sun_path, path) < 0)
		die("cannot listen");
	return fd;
}

/* One client after the other. */
static void *serve_socket(void *arg)
{
	int *listener = arg;

	for (;;)
		serve(listener - listeners,
		      accept4(*listener, NULL, NULL, SOCK_CLOEXEC));
	return NULL;
}

static void open_bank(struct bank *b)
{
	struct stat st;

	b->fd = open(b->path, O_RDWR | O_CLOEXEC);
	if (b->fd < 0 || fstat(b->fd, &st) < 0)
		die("no memory");
	b->first = npages;
	b->npages = st.st_size / PAGE;
	npages += b->npages;
}

static void map_log(struct bank *b, const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	b->dirty = mmap(NULL, (b->npages + 63) / 64 * 8, PROT_READ | PROT_WRITE,
			MAP_SHARED, fd, 0);
	if (fd < 0 || b->dirty == MAP_FAILED)
		die("cannot map the log");
}

static void map_bank(struct bank *b)
{
	char path[4096 + 8], link[32];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", b->fd);
	n = readlink(link, path, 4096);
	if (n < 0 || mmap(ram + b->first * WORDS, b->npages * PAGE, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_FIXED, b->fd, 0) == MAP_FAILED)
		die("cannot map memory");
	b->limit_fd = -1;
	if (b->is_slot)
		return;
	strcpy(path + n, ".dirty");
	map_log(b, path);
	strcpy(path + n, ".limit");
	b->limit_fd = open(path, O_RDONLY | O_CLOEXEC);
}

static void map_ram(bool incoming)
{
	int i;

	for (i = 0; i < nr_banks; i++) {
		open_bank(&banks[i]);
		snprintf(banks[i].id, sizeof(banks[i].id), i ? "ram%d" : "ram", i);
	}
	/* A place for all of it. */
	ram = mmap(NULL, npages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!npages || ram == MAP_FAILED)
		die("no memory");
	for (i = 0; i < nr_banks; i++)
		map_bank(&banks[i]);
	table_pages = (npages + WORDS - 1) / WORDS;
	if (incoming)
		return;
	cpu.magic = MAGIC;
	cpu.seed = 88172645463325252;
	/* A part of it has never been used. */
	for (uint64_t page = table_pages; page < npages * 3 / 4; page++)
		set_page(page, ++cpu.ticks, false);
}

static void open_console(const char *path)
{
	console = fopen(path, "we");
	if (!console)
		die("cannot open the console");
	setlinebuf(console);
}

int main(int argc, char **argv)
{
	bool incoming = false;
	pthread_t thread;
	int i, fd = -1;

	signal(SIGPIPE, SIG_IGN);
	for (i = 1; i < argc; i += 2) {
		char *value = argv[i + 1];

		if (!strcmp(argv[i], "-S")) {
			autostart = false;
			i--;
			continue;
		}
		if (!value)
			die("a value is missing");
		if (!strcmp(argv[i], "--check")) {
			check_file(value);
			return 0;
		} else if (!strcmp(argv[i], "--ram") && nr_banks < MAX_BANKS)
			banks[nr_banks++].path = value;
		else if (!strcmp(argv[i], "--slot") && nr_banks < MAX_BANKS) {
			banks[nr_banks].is_slot = true;
			banks[nr_banks++].path = value;
		} else if (!strcmp(argv[i], "--qmp") && nr_listeners < MAX_MONITORS)
			monitor_paths[nr_listeners++] = value;
		else if (!strcmp(argv[i], "--rate"))
			rate = atoll(value);
		else if (!strcmp(argv[i], "--hot"))
			hot = atoll(value);
		else if (!strcmp(argv[i], "--zeroed"))
			zeroed = atoll(value);
		else if (!strcmp(argv[i], "--save"))
			save_time = atoi(value);
		else if (!strcmp(argv[i], "--console"))
			open_console(value);
		else if (!strcmp(argv[i], "--lock"))
			lock_fd = open(value, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		else if (!strcmp(argv[i], "--image"))
			image_fd = open(value, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		else if (!strcmp(argv[i], "--fail")) {
			fail_command = strtok(value, ":");
			fail_how = strtok(NULL, ":");
		} else if (!strcmp(argv[i], "-incoming"))
			incoming = true;
		else if (!strcmp(argv[i], "-chardev"))
			fd = atoi(strstr(value, "fd=") + 3);
		else if (strcmp(argv[i], "-mon"))
			die("unknown argument");
	}
	map_ram(incoming);
	if (incoming)
		status = "inmigrate";
	else if (lock_image())
		set_running(true);
	else
		die("the image is locked");
	if (pthread_create(&thread, NULL, run_guest, NULL))
		die("pthread_create");
	for (i = 0; i < nr_listeners; i++) {
		listeners[i] = listen_at(monitor_paths[i]);
		if (pthread_create(&thread, NULL, serve_socket, &listeners[i]))
			die("pthread_create");
	}
	if (!nr_listeners)
		serve(0, fd);
	/* Its monitor is gone, the guest is not. */
	for (;;)
		pause();
}
