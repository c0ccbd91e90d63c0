// SPDX-License-Identifier: GPL-2.0

//! Folios of device memory.

use super::DevPagemap;
use crate::{
    bindings,
    io::{
        Mmio,
        MmioRaw,
        Region, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sizes::SZ_1K,
    sync::{
        aref::AlwaysRefCounted,
        barrier, //
    },
    types::Opaque, //
};
use core::ptr::NonNull;

/// A folio of peer-to-peer DMA memory: a power-of-two number of pages that are managed as one.
///
/// This is a `struct folio`. An [`ARef<DeviceFolio>`] owns one of its references. Dropping the last
/// reference returns the memory to its allocator at once, possibly in a hard interrupt handler.
///
/// # Invariants
///
/// - The folio's pagemap is of type `MEMORY_DEVICE_PCI_P2PDMA`.
/// - The reference count of the folio is not 0. Folios of this type are not split while they have
///   references.
///
/// [`ARef<DeviceFolio>`]: crate::sync::aref::ARef
#[repr(transparent)]
pub struct DeviceFolio(Opaque<bindings::folio>);

impl DeviceFolio {
    /// Returns a raw pointer to the `struct folio`.
    #[inline]
    pub fn as_raw(&self) -> *mut bindings::folio {
        self.0.get()
    }

    /// Returns the order of the folio, which consists of `1 << order()` pages.
    #[inline]
    pub fn order(&self) -> u32 {
        // SAFETY: By the type invariant, this is a valid folio.
        unsafe { bindings::folio_order(self.as_raw()) }
    }

    /// Returns the number of pages.
    #[inline]
    pub fn nr_pages(&self) -> usize {
        1 << self.order()
    }

    /// Returns the page frame number of the first page.
    #[inline]
    pub(crate) fn pfn(&self) -> usize {
        // SAFETY: By the type invariant, this is a valid folio.
        unsafe { bindings::folio_pfn(self.as_raw()) }
    }

    /// Returns the pagemap that the folio is part of.
    #[inline]
    pub fn pagemap(&self) -> &DevPagemap {
        // SAFETY: This is a valid folio of device memory, and a `struct folio` starts with its
        // first page.
        let pgmap = unsafe { bindings::page_pgmap(self.as_raw().cast()) };

        // SAFETY: By the type invariant, the pagemap is of type `MEMORY_DEVICE_PCI_P2PDMA`. A folio
        // with references keeps its pagemap set up, and the provider outlives the pagemap.
        unsafe { DevPagemap::from_raw(pgmap) }
    }

    /// Returns the kernel's mapping of the memory, which is MMIO.
    ///
    /// # Errors
    ///
    /// Those of [`MmioRaw::new_region`]. They do not occur, as the folio lies within the address
    /// space.
    pub fn as_mmio(&self) -> Result<Mmio<'_, Region>> {
        // SAFETY: This is a valid folio, and memory of its type is part of the linear mapping.
        let addr = unsafe { bindings::folio_address(self.as_raw()) };
        let raw = MmioRaw::new_region(addr.addr(), self.nr_pages() * PAGE_SIZE)?;

        // SAFETY: `memremap_pages()` has mapped the memory as MMIO at this address. The mapping
        // exists for as long as a folio of the pagemap has references. The result borrows `self`,
        // which has one.
        Ok(unsafe { Mmio::from_raw(raw) })
    }

    /// Clears the memory.
    ///
    /// When this returns, the zeros have arrived in the device. They cannot overwrite later writes
    /// by the processor, through whichever mapping, nor DMA that starts later.
    pub fn clear(&self) {
        // SAFETY: By the type invariant, this is a valid folio with references, and
        // `memremap_pages()` keeps its memory mapped as MMIO for as long as that is so.
        unsafe {
            clear_mmio(
                bindings::folio_address(self.as_raw()),
                self.nr_pages() * PAGE_SIZE,
            );
        }
    }
}

/// Clears device memory, and waits until the zeros have arrived in the device.
///
/// Returns whether the last word reads as 0 then. Otherwise the device has not accepted the writes,
/// for example because it is being reset.
///
/// # Safety
///
/// `addr` must be the address of a mapping of `size` bytes of MMIO. `size` must be a multiple of
/// 1 KiB, and not 0.
pub(super) unsafe fn clear_mmio(addr: *mut c_void, size: usize) -> bool {
    static ZEROS: [u64; SZ_1K / size_of::<u64>()] = [0; SZ_1K / size_of::<u64>()];

    for offset in (0..size).step_by(SZ_1K) {
        // SAFETY: The caller promises that there is 1 KiB at the offset.
        unsafe {
            bindings::__iowrite64_copy(
                addr.byte_add(offset),
                (&raw const ZEROS).cast(),
                ZEROS.len(),
            )
        };
    }
    // The barrier empties the write-combining buffers of the processor. The read then waits until
    // the posted writes have arrived: a read request does not pass posted writes on the PCI bus.
    barrier::mb(barrier::Full);
    // SAFETY: The caller promises that `size` bytes are mapped, and that `size` is not 0.
    unsafe { bindings::readq(addr.byte_add(size - size_of::<u64>())) == 0 }
}

// SAFETY: `folio_get()` and `folio_put()` count the references of a folio.
unsafe impl AlwaysRefCounted for DeviceFolio {
    #[inline]
    fn inc_ref(&self) {
        // SAFETY: This is a valid folio.
        let refs = unsafe { bindings::folio_ref_count(self.as_raw()) };

        // The reference count does not saturate. If it is negative, more than half of the possible
        // references have been leaked.
        assert!(refs > 0, "too many references to a folio");
        // SAFETY: By the type invariant, the reference count is not zero.
        unsafe { bindings::folio_get(self.as_raw()) };
    }

    #[inline]
    unsafe fn dec_ref(obj: NonNull<Self>) {
        // CAST: `DeviceFolio` is a transparent wrapper of `struct folio`.
        // SAFETY: The caller owns a reference and passes it on.
        unsafe { bindings::folio_put(obj.cast().as_ptr()) };
    }
}

// SAFETY: References to a folio are not bound to a thread: any thread, in any context except NMI,
// may put them.
unsafe impl Send for DeviceFolio {}

// SAFETY: All methods may be called concurrently: the reference count is atomic, MMIO may be
// accessed concurrently, and all other methods read fields that do not change while the folio has
// references.
unsafe impl Sync for DeviceFolio {}
