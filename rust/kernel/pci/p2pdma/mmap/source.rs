// SPDX-License-Identifier: GPL-2.0

//! Sources of the memory that user space maps.

use crate::{
    memremap::{
        DevPagemap,
        DeviceFolio,
        PageAllocator,
        Pagemap,
        UserId,
        MAX_ORDER, //
    },
    pci::p2pdma::{
        pool::Search,
        Pool, //
    },
    prelude::*,
    sync::aref::ARef, //
};
use core::ops::Range;

/// What a [`Pagemap`] and a [`Pool`] have in common.
pub(super) trait Backend: Send + Sync {
    /// Allocates a folio for `user` like [`Pagemap::alloc`]. `search` is the same for all folios of
    /// an object.
    fn alloc_folio(
        &self,
        order: u32,
        user: UserId,
        search: &mut Search,
    ) -> Result<ARef<DeviceFolio>>;

    fn pagemap(&self) -> &DevPagemap;
    fn nr_pages(&self) -> usize;
    /// Returns the number of pages in use, by anyone.
    fn nr_used(&self) -> usize;
    fn has_free(&self, nr_pages: usize) -> bool;

    /// Clears free memory like [`Pagemap::clean`].
    ///
    /// # Safety
    ///
    /// Those of [`Pagemap::clean`].
    unsafe fn clean(&self, pages: Range<usize>, user: UserId, stop: &dyn Fn() -> bool) -> bool;
}

/// Returns how many folios it takes at least for `nr_pages` pages.
pub(super) fn min_folios(nr_pages: usize) -> usize {
    nr_pages.div_ceil(1 << MAX_ORDER)
}

/// Returns the order of the largest folio that can start at the page with the index `start` of
/// `nr_pages` pages, so that its index is a multiple of its size. The addresses at which the pages
/// are mapped are aligned like the indices.
fn order_at(start: usize, nr_pages: usize) -> u32 {
    // PANIC: The caller passes a `start` below `nr_pages`, so the logarithm is not that of 0.
    (nr_pages - start).ilog2().min(start.trailing_zeros())
}

impl dyn Backend + '_ {
    /// Allocates `nr_pages` pages and passes them to `f` as folios. The pages hold zeros, or what
    /// `user` left there. Fails with `ENOSPC` if there are not enough free pages. If this or `f`
    /// fails, `f` may have got a part of the folios.
    pub(super) fn alloc(
        &self,
        nr_pages: usize,
        user: UserId,
        mut f: impl FnMut(ARef<DeviceFolio>) -> Result,
    ) -> Result {
        let mut search = Search::default();
        let mut limit = MAX_ORDER;
        let mut start = 0;

        while start < nr_pages {
            let order = order_at(start, nr_pages).min(limit);
            let folio = self.alloc_folio(order, user, &mut search)?;

            // Do not ask for a block of that order again: each time, the allocator may search all
            // of its map in vain.
            if folio.order() < order {
                limit = folio.order();
            }
            // OVERFLOW: The order fits into what is left, so this is at most `nr_pages`.
            start += folio.nr_pages();
            f(folio)?;
        }
        Ok(())
    }
}

impl<A: PageAllocator> Backend for Pagemap<A> {
    fn alloc_folio(
        &self,
        order: u32,
        user: UserId,
        _search: &mut Search,
    ) -> Result<ARef<DeviceFolio>> {
        self.alloc(order, user)
    }

    fn pagemap(&self) -> &DevPagemap {
        self.as_dev_pagemap()
    }

    fn nr_pages(&self) -> usize {
        Pagemap::nr_pages(self)
    }

    fn nr_used(&self) -> usize {
        Pagemap::nr_used(self)
    }

    fn has_free(&self, nr_pages: usize) -> bool {
        Pagemap::has_free(self, nr_pages)
    }

    unsafe fn clean(&self, pages: Range<usize>, user: UserId, stop: &dyn Fn() -> bool) -> bool {
        // SAFETY: The caller promises what this requires.
        unsafe { Pagemap::clean(self, pages, user, stop) }
    }
}

impl Backend for Pool<'_> {
    fn alloc_folio(
        &self,
        order: u32,
        user: UserId,
        search: &mut Search,
    ) -> Result<ARef<DeviceFolio>> {
        Pool::alloc_folio(self, order, user, search)
    }

    fn pagemap(&self) -> &DevPagemap {
        self.as_dev_pagemap()
    }

    fn nr_pages(&self) -> usize {
        Pool::nr_pages(self)
    }

    fn nr_used(&self) -> usize {
        Pool::nr_used(self)
    }

    fn has_free(&self, nr_pages: usize) -> bool {
        nr_pages <= Pool::nr_pages(self).saturating_sub(Pool::nr_used(self))
    }

    unsafe fn clean(&self, pages: Range<usize>, user: UserId, stop: &dyn Fn() -> bool) -> bool {
        // SAFETY: The caller promises what this requires.
        unsafe { Pool::clean(self, pages, user, stop) }
    }
}

/// Memory that a [`Registration`](super::Registration) allocates from: a [`Pagemap`] or a [`Pool`].
#[derive(Copy, Clone)]
pub struct Source<'a> {
    name: &'static CStr,
    kind: Kind<'a>,
}

#[derive(Copy, Clone)]
enum Kind<'a> {
    Pagemap(&'a dyn Backend),
    Pool(Pool<'a>),
}

impl<'a> Source<'a> {
    /// Makes a source of a pagemap. `name` identifies the source in debugfs.
    pub fn pagemap<A: PageAllocator>(name: &'static CStr, pagemap: &'a Pagemap<A>) -> Self {
        Self {
            name,
            kind: Kind::Pagemap(pagemap),
        }
    }

    /// Makes a source of the pages that one call of [`Device::p2pdma_add_resource`] has added to
    /// the device's pool. `name` identifies the source in debugfs.
    ///
    /// [`Device::p2pdma_add_resource`]: crate::pci::Device::p2pdma_add_resource
    pub fn pool(name: &'static CStr, pool: Pool<'a>) -> Self {
        Self {
            name,
            kind: Kind::Pool(pool),
        }
    }

    pub(super) fn name(&self) -> &'static CStr {
        self.name
    }

    pub(super) fn backend(&self) -> &dyn Backend {
        match &self.kind {
            Kind::Pagemap(pagemap) => *pagemap,
            Kind::Pool(pool) => pool,
        }
    }
}

/// The usage of one [`Source`], or of all sources by an open file.
#[derive(Copy, Clone, Default)]
pub(super) struct Usage {
    /// The size in bytes of the source, or the limit of the open file.
    pub size: usize,
    /// The number of bytes in use. For a source, this counts the memory of all users.
    pub used: usize,
    /// The number of objects. These include objects that have been freed but are still mapped, and
    /// the objects of mappings at offset 0.
    pub objects: usize,
    /// The number of `mmap()` calls of which a part is still mapped.
    pub mappings: usize,
}
