// SPDX-License-Identifier: MIT
#include <errno.h>

#include "resume.h"

/* One call, for @nr ranges of which the first may have been begun. */
static int resume_once(struct dtrack_vector *v, const struct dirtytrack_range *ranges,
		       uint32_t nr, struct dtrack_rest *rest,
		       int (*call)(struct dtrack_vector *v))
{
	struct dirtytrack_range first = ranges[rest->nr];
	int ret;

	v->ranges = (uintptr_t)&ranges[rest->nr];
	v->nr = nr - rest->nr;
	/* The caller's ranges are his: the rest of one is a range of ours. */
	if (rest->next) {
		if (rest->next < first.first ||
		    rest->next - first.first >= first.npages)
			return -EINVAL;
		first.npages -= rest->next - first.first;
		first.first = rest->next;
		v->ranges = (uintptr_t)&first;
		v->nr = 1;
	}
	ret = call(v);
	if (ret)
		return ret;
	/* A call without an error makes progress: don't spin if not. */
	if (v->out_nr > v->nr || (!v->out_nr && v->out_next <= first.first))
		return -EPROTO;
	rest->nr += v->out_nr;
	rest->next = v->out_next;
	return 0;
}

int dtrack_resume(struct dtrack_vector *v, const struct dirtytrack_range *ranges,
		  uint32_t nr, struct dtrack_rest *rest,
		  int (*call)(struct dtrack_vector *v))
{
	int ret = 0;

	while (!ret && rest->nr < nr)
		ret = resume_once(v, ranges, nr, rest, call);
	return ret;
}
