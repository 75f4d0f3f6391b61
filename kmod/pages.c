// SPDX-License-Identifier: GPL-2.0-only
/*
 * The page store of a slot: order-0 pages in chunks of 2 MiB.
 *
 * Pages are ours alone: not on the LRU, not movable, not in the page cache.  So
 * their reference count is known (1, and 1 for each mapping), which is how a
 * collect sees that someone else holds one; and no migration or swap entry, which
 * the protect pass does not understand, ever stands for one.
 *
 * Pages appear under mapping->invalidate_lock held shared, by cmpxchg, and go
 * away under it held exclusive.  Whoever uses a page without the lock holds a
 * reference to it.
 */
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "dirtytrack.h"

#define DT_CHUNK_TABLE_SIZE (DT_CHUNK_PAGES * sizeof(struct page *))

static u64 dt_nchunks(struct dt_slot *slot)
{
	return DIV_ROUND_UP_ULL(slot->npages, DT_CHUNK_PAGES);
}

static struct dt_chunk *dt_chunk_of(struct dt_slot *slot, pgoff_t pgoff)
{
	return &slot->chunks[pgoff / DT_CHUNK_PAGES];
}

/**
 * dt_pages_table_size - what an empty page store takes
 * @npages: size of its slot
 *
 * Return: bytes.
 */
u64 dt_pages_table_size(u64 npages)
{
	return PAGE_ALIGN(DIV_ROUND_UP_ULL(npages, DT_CHUNK_PAGES) *
			  sizeof(struct dt_chunk));
}

/**
 * dt_pages_init - make the empty page store
 * @slot: the slot, with its size
 *
 * Return: 0 or ENOMEM; dt_pages_destroy() undoes either.
 */
int dt_pages_init(struct dt_slot *slot)
{
	slot->chunks = __vmalloc(dt_pages_table_size(slot->npages), DT_GFP_TABLE);
	if (!slot->chunks)
		return -ENOMEM;
	return percpu_counter_init(&slot->resident, 0, GFP_KERNEL_ACCOUNT);
}

/**
 * dt_pages_destroy - free the page store and every page
 * @slot: the slot, which nobody else uses any more
 */
void dt_pages_destroy(struct dt_slot *slot)
{
	u64 i, charged = 0;
	int j;

	for (i = 0; slot->chunks && i < dt_nchunks(slot); i++) {
		struct page **pages = slot->chunks[i].pages;

		if (!pages)
			continue;
		for (j = 0; j < DT_CHUNK_PAGES; j++) {
			if (!pages[j])
				continue;
			put_page(pages[j]);
			charged += PAGE_SIZE;
		}
		kfree(pages);
		charged += DT_CHUNK_TABLE_SIZE;
		cond_resched();
	}
	dt_memory_uncharge(charged);
	vfree(slot->chunks);
	percpu_counter_destroy(&slot->resident);
}

/**
 * dt_page_find - look a page up
 * @slot: the slot
 * @pgoff: its offset, inside the slot
 *
 * Context: invalidate_lock held.
 * Return: the page, or NULL if there is no memory.
 */
struct page *dt_page_find(struct dt_slot *slot, pgoff_t pgoff)
{
	struct page **pages = READ_ONCE(dt_chunk_of(slot, pgoff)->pages);

	return pages ? READ_ONCE(pages[pgoff % DT_CHUNK_PAGES]) : NULL;
}

/**
 * dt_pages_word - look the pages of a bitmap word up
 * @slot: the slot
 * @word: index of the word
 *
 * Context: invalidate_lock held; entries appear under it held shared.
 * Return: its DT_WORD_BITS entries of the page store, or NULL if none has memory.
 */
struct page **dt_pages_word(struct dt_slot *slot, u64 word)
{
	struct page **pages = READ_ONCE(dt_chunk_of(slot, word * DT_WORD_BITS)->pages);

	BUILD_BUG_ON(DT_CHUNK_PAGES % DT_WORD_BITS);
	return pages ? pages + word * DT_WORD_BITS % DT_CHUNK_PAGES : NULL;
}

static struct page **dt_chunk_get(struct dt_chunk *chunk)
{
	struct page **pages = READ_ONCE(chunk->pages), **new;
	int err;

	if (pages)
		return pages;
	err = dt_memory_charge(DT_CHUNK_TABLE_SIZE);
	if (err)
		return ERR_PTR(err);
	new = kzalloc(DT_CHUNK_TABLE_SIZE, GFP_KERNEL_ACCOUNT);
	pages = new ? cmpxchg(&chunk->pages, NULL, new) : ERR_PTR(-ENOMEM);
	if (!pages)
		return new;
	kfree(new);			/* another was faster */
	dt_memory_uncharge(DT_CHUNK_TABLE_SIZE);
	return pages;
}

/**
 * dt_page_get - look a page up, and give it memory if it has none
 * @slot: the slot
 * @pgoff: its offset, inside the slot
 * @node: NUMA node to ask first, or NUMA_NO_NODE for that of the caller's policy
 *
 * Context: invalidate_lock held, may sleep.
 * Return: the page; ENOSPC over the bound for all slots, ENOMEM.
 */
struct page *dt_page_get(struct dt_slot *slot, pgoff_t pgoff, int node)
{
	const gfp_t gfp = GFP_HIGHUSER | __GFP_ZERO | __GFP_ACCOUNT;
	struct dt_chunk *chunk = dt_chunk_of(slot, pgoff);
	struct page **pages = dt_chunk_get(chunk);
	struct page *page, *old;
	int err;

	if (IS_ERR(pages))
		return ERR_CAST(pages);
	page = READ_ONCE(pages[pgoff % DT_CHUNK_PAGES]);
	if (page)
		return page;
	err = dt_memory_charge(PAGE_SIZE);
	if (err)
		return ERR_PTR(err);
	page = node == NUMA_NO_NODE ? alloc_page(gfp) : alloc_pages_node(node, gfp, 0);
	old = page ? cmpxchg(&pages[pgoff % DT_CHUNK_PAGES], NULL, page) :
		     ERR_PTR(-ENOMEM);
	if (old) {
		if (page)
			put_page(page);		/* another was faster */
		dt_memory_uncharge(PAGE_SIZE);
		return old;
	}
	atomic_inc(&chunk->resident);
	percpu_counter_inc(&slot->resident);
	return page;
}

/**
 * dt_pages_resident - which pages of a bitmap word have memory
 * @slot: the slot
 * @word: index of the word
 *
 * Context: invalidate_lock held.
 * Return: a bit for each of the 64 pages.
 */
u64 dt_pages_resident(struct dt_slot *slot, u64 word)
{
	struct page **pages = dt_pages_word(slot, word);
	u64 bits = 0;
	int i;

	if (!pages)
		return 0;
	/* It is counted after it is there, and none goes under the lock. */
	if (atomic_read(&dt_chunk_of(slot, word * DT_WORD_BITS)->resident) ==
	    DT_CHUNK_PAGES)
		return ~0ULL;
	for (i = 0; i < DT_WORD_BITS; i++)
		bits |= (u64)!!READ_ONCE(pages[i]) << i;
	return bits;
}

/**
 * dt_pages_seek - find the next page with, or without, memory
 * @slot: the slot
 * @pgoff: where to start, at most the slot's size
 * @resident: which
 *
 * Context: invalidate_lock held.
 * Return: its offset, or the slot's size.
 */
pgoff_t dt_pages_seek(struct dt_slot *slot, pgoff_t pgoff, bool resident)
{
	while (pgoff < slot->npages) {
		struct dt_chunk *chunk = dt_chunk_of(slot, pgoff);

		/* A page is there before it is counted. */
		if (!(pgoff % DT_CHUNK_PAGES) &&
		    (resident ? !READ_ONCE(chunk->pages) :
				atomic_read(&chunk->resident) == DT_CHUNK_PAGES)) {
			pgoff += DT_CHUNK_PAGES;
			cond_resched();
			continue;
		}
		if (!!dt_page_find(slot, pgoff) == resident)
			return pgoff;
		pgoff++;
	}
	return slot->npages;
}

/**
 * dt_chunk_empty - has a chunk no memory?
 * @slot: the slot
 * @pgoff: a page of the chunk
 *
 * Not by its count: a page can be found, and written to, before it is counted.
 *
 * Return: true if none of its pages had at the time of the call.
 */
bool dt_chunk_empty(struct dt_slot *slot, pgoff_t pgoff)
{
	return !READ_ONCE(dt_chunk_of(slot, pgoff)->pages);
}

/**
 * dt_pages_remove - take pages of a bitmap word out of the store
 * @slot: the slot
 * @word: index of the word
 * @bits: which of its pages; they have memory
 * @pages: list that gets them, with the store's references, by page->lru
 *
 * Context: invalidate_lock held exclusive.
 */
void dt_pages_remove(struct dt_slot *slot, u64 word, u64 bits, struct list_head *pages)
{
	struct page **entries = dt_pages_word(slot, word);
	u32 count = hweight64(bits);

	for (; bits; bits &= bits - 1) {
		struct page *page = entries[__ffs64(bits)];

		WRITE_ONCE(entries[__ffs64(bits)], NULL);
		list_add_tail(&page->lru, pages);	/* not on the LRU: it is ours */
	}
	atomic_sub(count, &dt_chunk_of(slot, word * DT_WORD_BITS)->resident);
	percpu_counter_sub(&slot->resident, count);
	dt_memory_uncharge((u64)count * PAGE_SIZE);
}

/**
 * dt_pages_trim - free what an empty chunk needs
 * @slot: the slot
 * @pgoff: a page of the chunk
 *
 * Context: invalidate_lock held exclusive.
 */
void dt_pages_trim(struct dt_slot *slot, pgoff_t pgoff)
{
	struct dt_chunk *chunk = dt_chunk_of(slot, pgoff);

	if (chunk->pages && !atomic_read(&chunk->resident)) {
		kfree(chunk->pages);
		chunk->pages = NULL;
		dt_memory_uncharge(DT_CHUNK_TABLE_SIZE);
	}
}
