// SPDX-License-Identifier: GPL-2.0

//! Folios.
//!
//! C header: [`include/linux/mm_types.h`](srctree/include/linux/mm_types.h)

use crate::{
    bindings,
    sync::aref::AlwaysRefCounted,
    types::Opaque, //
};
#[cfg(CONFIG_PCI_P2PDMA)]
use crate::{
    io::{
        Io,
        IoBackend,
        Mmio,
        MmioBackend,
        MmioRaw,
        Region, //
    },
    memremap::PagemapRef,
    page::PAGE_SIZE,
    prelude::*,
    sync::barrier, //
};
use core::ptr::NonNull;

/// A folio: a power-of-two number of pages that are managed as one.
///
/// This is a `struct folio`. An [`ARef<Folio>`] owns one of its references.
///
/// Whoever drops the last reference frees the memory, in place. For a folio of a `ZONE_DEVICE` this
/// means that the `folio_free()` method of its `struct dev_pagemap` is called by the one who drops
/// it, who may be anyone: a task, but a hard interrupt handler as well.
///
/// # Invariants
///
/// The reference count of the folio is not zero.
///
/// # Examples
///
/// ```
/// use kernel::mm::Folio;
/// use kernel::page::Page;
/// use kernel::sync::aref::ARef;
///
/// let page = Page::alloc_page(GFP_KERNEL)?;
///
/// // SAFETY: `page` is of order 0, and hence the one page of its folio. It owns a reference to the
/// // folio for as long as it exists.
/// let folio: &Folio = unsafe { Folio::from_raw(page.as_ptr().cast()) };
///
/// assert_eq!(folio.order(), 0);
/// assert_eq!(folio.nr_pages(), 1);
/// assert!(!folio.is_pci_p2pdma());
///
/// let reference: ARef<Folio> = folio.into();
/// assert_eq!(reference.pfn(), folio.pfn());
/// # Ok::<(), Error>(())
/// ```
///
/// [`ARef<Folio>`]: crate::sync::aref::ARef
#[repr(transparent)]
pub struct Folio(Opaque<bindings::folio>);

impl Folio {
    /// Creates a reference to a folio from a raw pointer.
    ///
    /// # Safety
    ///
    /// `ptr` must point to a folio, and the reference count of this folio must not become zero
    /// during `'a`.
    #[inline]
    pub unsafe fn from_raw<'a>(ptr: *mut bindings::folio) -> &'a Self {
        // CAST: `Folio` is a transparent wrapper of `struct folio`.
        // SAFETY: The caller promises that `ptr` is valid for `'a`.
        // INVARIANT: The caller promises that the reference count is not zero.
        unsafe { &*ptr.cast() }
    }

    /// Returns a raw pointer to the `struct folio`.
    #[inline]
    pub fn as_raw(&self) -> *mut bindings::folio {
        self.0.get()
    }

    /// Returns the order of the folio: it is `1 << order()` pages large.
    ///
    /// The order of a folio that others may split can change at any time.
    #[inline]
    pub fn order(&self) -> u32 {
        // SAFETY: By the type invariant, this is a valid folio.
        unsafe { bindings::folio_order(self.as_raw()) }
    }

    /// Returns the number of pages.
    ///
    /// The same reservation as for [`Self::order`] applies.
    #[inline]
    pub fn nr_pages(&self) -> usize {
        1 << self.order()
    }

    /// Returns the page frame number of the first page.
    #[inline]
    pub fn pfn(&self) -> usize {
        // SAFETY: By the type invariant, this is a valid folio.
        unsafe { bindings::folio_pfn(self.as_raw()) }
    }

    /// Returns whether this is peer-to-peer DMA memory, `MEMORY_DEVICE_PCI_P2PDMA`.
    #[inline]
    pub fn is_pci_p2pdma(&self) -> bool {
        // SAFETY: By the type invariant, this is a valid folio with a reference, and as such keeps
        // its pagemap alive.
        unsafe { bindings::folio_is_pci_p2pdma(self.as_raw()) }
    }

    /// Returns the pagemap of peer-to-peer DMA memory, or [`None`] for other folios.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::{mm::Folio, page::Page};
    /// # let page = Page::alloc_page(GFP_KERNEL)?;
    /// # // SAFETY: `page` is of order 0, and hence the one page of its folio. It owns a reference.
    /// # let ram: &Folio = unsafe { Folio::from_raw(page.as_ptr().cast()) };
    /// assert!(ram.pagemap().is_none());
    /// # Ok::<(), Error>(())
    /// ```
    #[cfg(CONFIG_PCI_P2PDMA)]
    #[inline]
    pub fn pagemap(&self) -> Option<PagemapRef<'_>> {
        if !self.is_pci_p2pdma() {
            return None;
        }

        // SAFETY: This is a valid folio of device memory, and starts with its first page.
        let pgmap = NonNull::new(unsafe { bindings::page_pgmap(self.as_raw().cast()) })?;

        // SAFETY: We have just checked the type. The references to a folio keep the pagemap, whose
        // owner is there for longer.
        Some(unsafe { PagemapRef::from_raw(pgmap) })
    }

    /// Returns the kernel's mapping of peer-to-peer DMA memory, as what it is: MMIO.
    ///
    /// Returns [`EINVAL`] for other folios.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::{mm::Folio, page::Page};
    /// use kernel::io::Io;
    ///
    /// /// Writes a message where a device looks for it.
    /// fn send(folio: &Folio, message: u64) -> Result {
    ///     folio.as_mmio()?.try_write64(message, 0)
    /// }
    /// #
    /// # let page = Page::alloc_page(GFP_KERNEL)?;
    /// # // SAFETY: `page` is of order 0, and hence the one page of its folio. It owns a reference.
    /// # let ram: &Folio = unsafe { Folio::from_raw(page.as_ptr().cast()) };
    ///
    /// assert_eq!(send(ram, 1), Err(EINVAL));
    /// # Ok::<(), Error>(())
    /// ```
    #[cfg(CONFIG_PCI_P2PDMA)]
    pub fn as_mmio(&self) -> Result<Mmio<'_, Region>> {
        if !self.is_pci_p2pdma() {
            return Err(EINVAL);
        }

        // SAFETY: This is a valid folio, and memory of its type is part of the linear mapping.
        let addr = unsafe { bindings::folio_address(self.as_raw()) };
        // OVERFLOW: A folio fits into the address space.
        let raw = MmioRaw::new_region(addr.addr(), self.nr_pages() * PAGE_SIZE)?;

        // SAFETY: `memremap_pages()` has mapped the memory there as MMIO, until all references to
        // folios are gone. Folios of this type are not split while they have references, and the
        // result borrows one.
        Ok(unsafe { Mmio::from_raw(raw) })
    }

    /// Clears peer-to-peer DMA memory; does nothing to other folios.
    ///
    /// When this returns, the zeros have arrived: nothing that the processor writes later on, by
    /// whichever mapping, and no DMA that starts later on is overwritten by them.
    #[cfg(CONFIG_PCI_P2PDMA)]
    pub(crate) fn clear(&self) {
        if let Ok(io) = self.as_mmio() {
            // SAFETY: This is MMIO of that size, which is that of the folio, and is there for as
            // long as `io`.
            unsafe { clear_mmio(MmioBackend::as_ptr(io).cast(), io.size()) };
        }
    }
}

/// Clears MMIO that is memory, and waits until the zeros have arrived.
///
/// # Safety
///
/// `addr` must be the address of a mapping of `size` bytes of MMIO, which is a multiple of
/// [`PAGE_SIZE`], and not 0.
#[cfg(CONFIG_PCI_P2PDMA)]
pub(crate) unsafe fn clear_mmio(addr: *mut c_void, size: usize) {
    static ZEROS: [u64; PAGE_SIZE / size_of::<u64>()] = [0; PAGE_SIZE / size_of::<u64>()];

    for offset in (0..size).step_by(PAGE_SIZE) {
        // SAFETY: The caller promises that there is a page at the offset.
        unsafe {
            bindings::__iowrite64_copy(
                addr.byte_add(offset),
                (&raw const ZEROS).cast(),
                ZEROS.len(),
            )
        };
    }
    // First out of the processor's buffers, in which writes may be combined, then across the bus: a
    // read pushes the writes.
    barrier::mb(barrier::Full);
    // SAFETY: The caller promises that there are so many bytes.
    let _ = unsafe { bindings::readq(addr.byte_add(size - size_of::<u64>())) };
}

// SAFETY: `folio_get()` and `folio_put()` count the references of a folio.
unsafe impl AlwaysRefCounted for Folio {
    #[inline]
    fn inc_ref(&self) {
        // SAFETY: This is a valid folio.
        let refs = unsafe { bindings::folio_ref_count(self.as_raw()) };

        // It does not saturate. Half of what it can hold is far more than there ever are, unless
        // they are forgotten.
        assert!(refs > 0, "too many references to a folio");
        // SAFETY: By the type invariant, the reference count is not zero.
        unsafe { bindings::folio_get(self.as_raw()) };
    }

    #[inline]
    unsafe fn dec_ref(obj: NonNull<Self>) {
        // CAST: `Folio` is a transparent wrapper of `struct folio`.
        // SAFETY: The caller owns a reference and passes it on.
        unsafe { bindings::folio_put(obj.cast().as_ptr()) };
    }
}

// SAFETY: References to a folio belong to nobody in particular, so that any thread may put them.
// See `folios_put_refs()` in `mm/folio.c` for the contexts.
unsafe impl Send for Folio {}

// SAFETY: What can be done with a `&Folio` is to count references, which is atomic, to access MMIO,
// which threads may do at the same time, and to read what does not change while there are
// references, except for the order. The latter is read by C code that deals with concurrent splits.
unsafe impl Sync for Folio {}
