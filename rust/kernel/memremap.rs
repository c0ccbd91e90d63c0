// SPDX-License-Identifier: GPL-2.0

//! Device memory with `struct page`s.
//!
//! A [`Pagemap`] gives `struct page`s to memory behind a BAR of a PCI device. The block layer, with
//! `O_DIRECT`, and the DMA API accept such pages if the driver and the topology allow for it.
//! [`Pagemap::alloc`] hands out the memory as [`DeviceFolio`]s. A folio returns to the pagemap when
//! its last reference has been dropped. The driver, mappings in user space, and DMA by other
//! devices hold such references.
//!
//! A driver that has no allocator for its pages uses the one that is built into the pagemap. A
//! driver that has an allocator, as drivers of RDMA devices do, implements [`PageAllocator`] for
//! it.
//!
//! [`pci::Device::p2pdma_pagemap`] and [`pci::Device::p2pdma_pagemap_with`] create pagemaps.
//!
//! C header: [`include/linux/memremap.h`](srctree/include/linux/memremap.h)
//!
//! [`pci::Device::p2pdma_pagemap`]: crate::pci::Device::p2pdma_pagemap
//! [`pci::Device::p2pdma_pagemap_with`]: crate::pci::Device::p2pdma_pagemap_with

use crate::{
    bindings,
    device::Device,
    types::Opaque, //
};

mod allocator;
mod clean;
mod folio;
mod free;
mod pagemap;

pub(crate) use self::{
    allocator::Contents,
    clean::Cleaning, //
};
pub use self::{
    allocator::{
        BuiltIn,
        PageAllocator,
        UserId, //
    },
    folio::DeviceFolio,
    free::FreeFolio,
    pagemap::{
        Pagemap,
        MAX_ORDER, //
    },
};

/// How the processor accesses the memory of a pagemap, in the kernel as well as in user space.
///
/// Some architectures do not allow two mappings of the same memory with different cache modes.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum CacheMode {
    /// The processor performs each access separately and in order: `pgprot_noncached()`.
    ///
    /// On x86, memory that the kernel has already mapped write-combining stays write-combining; see
    /// [`Pagemap::mode`].
    Uncached,

    /// The processor may combine and delay writes: `pgprot_writecombine()`. This is for
    /// prefetchable BARs only. A write barrier, [`barrier::mb`], is needed between writes to the
    /// memory and the register access that tells the device of them.
    ///
    /// On x86, memory that the kernel has already mapped uncached stays uncached; see
    /// [`Pagemap::mode`].
    ///
    /// [`barrier::mb`]: crate::sync::barrier::mb
    WriteCombine,
}

/// A pagemap of peer-to-peer DMA memory: that of a [`Pagemap`], or one that C code has created.
///
/// # Invariants
///
/// - This is a `struct dev_pagemap` of type `MEMORY_DEVICE_PCI_P2PDMA` that `memremap_pages()` has
///   set up.
/// - It has one range.
/// - It has a provider, which stays valid for as long as the reference to this value.
#[repr(transparent)]
pub struct DevPagemap(Opaque<bindings::dev_pagemap>);

impl DevPagemap {
    /// Creates a reference to a [`DevPagemap`] from a raw pointer.
    ///
    /// # Safety
    ///
    /// `ptr` must point to a `struct dev_pagemap` of type `MEMORY_DEVICE_PCI_P2PDMA` that
    /// `memremap_pages()` has set up. The pagemap and its provider must stay valid for `'a`.
    #[inline]
    pub(crate) unsafe fn from_raw<'a>(ptr: *const bindings::dev_pagemap) -> &'a Self {
        // CAST: `DevPagemap` is a transparent wrapper of `struct dev_pagemap`.
        // SAFETY: The caller promises that `ptr` is valid for `'a`.
        // INVARIANT: The caller promises that the pagemap is set up, has this type, and that its
        // provider is valid for `'a`.
        unsafe { &*ptr.cast() }
    }

    /// Returns a raw pointer to the `struct dev_pagemap`.
    #[inline]
    pub fn as_raw(&self) -> *mut bindings::dev_pagemap {
        self.0.get()
    }

    /// Returns the device that has the memory.
    #[inline]
    pub fn device(&self) -> &Device {
        // SAFETY: By the type invariant, the pagemap has a valid provider. The owner of a provider
        // is the device that has the memory. Neither field changes after setup. The device outlives
        // its pagemap.
        unsafe { Device::from_raw((*(*self.as_raw()).provider).owner) }
    }
}

// SAFETY: The methods of `&DevPagemap`, and the C functions that get it, only read fields that do
// not change after `memremap_pages()` has set up the pagemap, or take locks of the pagemap.
unsafe impl Sync for DevPagemap {}

/// Returns the alignment, in bytes, of memory that can get `struct page`s.
///
/// Both the physical address and the size of such memory must be multiples of it. It is a power of
/// two: 2 MiB on all architectures except powerpc, where it can be 16 MiB.
///
/// C function: `memremap_compat_align()`. May be called from any context.
pub fn alignment() -> u64 {
    // CAST: An `unsigned long` is at most 64 bits wide.
    //
    // SAFETY: The function has no preconditions.
    unsafe { bindings::memremap_compat_align() as u64 }
}

/// Returns whether `value` is a multiple of [`alignment`].
pub fn is_aligned(value: u64) -> bool {
    value.is_multiple_of(alignment())
}
