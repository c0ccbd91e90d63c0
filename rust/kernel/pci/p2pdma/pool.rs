// SPDX-License-Identifier: GPL-2.0

//! Pools of peer-to-peer DMA memory.

#[cfg(CONFIG_AUXILIARY_BUS)]
use crate::{
    auxiliary,
    pci::p2pdma::mmap::Source, //
};
use crate::{
    bindings,
    device,
    error::to_result,
    io::{
        IoBase,
        Mmio,
        MmioBackend,
        MmioRaw,
        Region, //
    },
    memremap::{
        Cleaning,
        Contents,
        DevPagemap,
        DeviceFolio,
        UserId, //
    },
    mm::block_map::Block,
    page::{
        page_align,
        PAGE_SHIFT, //
    },
    pci::{
        p2pdma::bar::check,
        BusAddress,
        Device, //
    },
    prelude::*,
    sync::aref::ARef, //
};
use core::{
    ops::Range,
    ptr::NonNull, //
};

impl Device<device::Core<'_>> {
    /// Adds the part `range` of a BAR, in bytes from the start of the BAR, to the device's pool of
    /// peer-to-peer DMA memory.
    ///
    /// The device has one pool for the memory of all its BARs. The pool has a folder `p2pmem` in
    /// the device's folder in sysfs. From then on, user space can map memory of the pool through
    /// the file `p2pmem/allocate`.
    ///
    /// If the BAR is prefetchable, the memory is mapped write-combining: the processor may delay
    /// its writes. A write barrier, [`barrier::mb`], is then needed before a register access tells
    /// the device of them.
    ///
    /// The memory exists until the device is unbound. It is released after the driver's data have
    /// been dropped. The release waits until all users have returned their memory, and all DMA to
    /// it has completed.
    ///
    /// The device must decode memory accesses to the BAR, see [`Device::enable_device_mem`], until
    /// the memory has been released.
    ///
    /// C function: `pci_p2pdma_add_resource()`. May sleep.
    ///
    /// # Errors
    ///
    /// Those of [`Device::p2pdma_pagemap`], except those about its `mode`.
    ///
    /// [`barrier::mb`]: crate::sync::barrier::mb
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::{
    ///     device::Core,
    ///     pci::{
    ///         self,
    ///         p2pdma, //
    ///     },
    ///     prelude::*, //
    /// };
    ///
    /// /// Offers all of BAR 4 to other devices.
    /// fn offer<'bound>(
    ///     pdev: &'bound pci::Device<Core<'_>>,
    /// ) -> Result<p2pdma::Pool<'bound>> {
    ///     pdev.enable_device_mem()?;
    ///     let len = pdev.resource_len(4)?;
    ///     let pool = pdev.p2pdma_add_resource(4, 0..len)?;
    ///
    ///     pool.publish(true);
    ///     Ok(pool)
    /// }
    /// ```
    pub fn p2pdma_add_resource(&self, bar: u32, range: Range<u64>) -> Result<Pool<'_>> {
        let (num, phys) = check(self, bar, &range)?;
        let size = usize::try_from(range.end - range.start)?;

        // SAFETY: `self` is a valid device. Its context proves that a callback of its bus is
        // running. So the device lock is held, which serialises calls, as the function requires.
        // devres releases what the function registers when the device has been unbound, or when
        // probing it fails.
        to_result(unsafe {
            bindings::pci_p2pdma_add_resource(self.as_raw(), num, size, range.start)
        })?;

        // CAST: `PCI_P2PDMA` depends on `64BIT`.
        //
        // SAFETY: The function has no preconditions.
        let pagemap = unsafe { bindings::get_dev_pagemap((phys.start >> PAGE_SHIFT) as usize) };
        // This cannot be NULL: the memory has just been added.
        let pagemap = NonNull::new(pagemap).ok_or(ENODEV)?;
        // SAFETY: `get_dev_pagemap()` took this reference.
        unsafe { bindings::put_dev_pagemap(pagemap.as_ptr()) };

        // INVARIANT: `pci_p2pdma_add_resource()` has succeeded, so the device has a pool. The
        // pagemap is that of the memory which the function has added.
        Ok(Pool {
            dev: self,
            // SAFETY: `pci_p2pdma_add_resource()` has set up the pagemap, with this type. devres
            // keeps it and its provider until the device has been unbound, which is after the
            // lifetime of `self`.
            pagemap: unsafe { DevPagemap::from_raw(pagemap.as_ptr()) },
            nr_pages: size >> PAGE_SHIFT,
        })
    }
}

#[cfg(CONFIG_AUXILIARY_BUS)]
impl auxiliary::Device<device::Core<'_>> {
    /// Returns the pool of the PCI function that is the parent, as a source for a device node.
    /// `name` identifies the source in debugfs.
    ///
    /// If the driver of the parent has added several parts of memory, this is the part that was
    /// added first. Other users of the pool, such as the driver of the parent, keep what they have
    /// allocated from it.
    ///
    /// C function: `pci_p2pmem_pagemap()`. Does not sleep.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if the parent is no PCI function.
    /// - `EOPNOTSUPP` if the driver of the parent is written in C and has not called
    ///   `pci_p2pdma_lend()`.
    /// - `ENODEV` if the parent has no pool.
    pub fn p2pdma_pool(&self, name: &'static CStr) -> Result<Source<'_>> {
        let dev = self.lender()?;

        // SAFETY: `dev` is a valid device.
        let pagemap = unsafe { bindings::pci_p2pmem_pagemap(dev.as_raw()) };
        let pagemap = NonNull::new(pagemap).ok_or(ENODEV)?;
        // SAFETY: The pagemap is set up, and keeps its range until devres of `dev` releases it,
        // which is after `self` has been unbound: see `lender()`. It has one range, so the field of
        // the union is valid.
        let range = unsafe { (*pagemap.as_ptr()).__bindgen_anon_1.range.as_ref() };
        // CAST: `PCI_P2PDMA` depends on `64BIT`.
        let nr_pages = ((range.end + 1 - range.start) >> PAGE_SHIFT) as usize;

        // INVARIANT: The function returns pagemaps of the device's pool only. devres keeps the pool
        // until `self` has been unbound.
        let pool = Pool {
            dev,
            // SAFETY: The pagemap is one of a pool, so it has this type. devres keeps it and its
            // provider until `self` has been unbound.
            pagemap: unsafe { DevPagemap::from_raw(pagemap.as_ptr()) },
            nr_pages,
        };

        Ok(Source::pool(name, pool))
    }
}

/// The memory that one call of [`Device::p2pdma_add_resource`] has added to a device's pool.
///
/// Dropping it does nothing: the memory is released when the device is unbound.
///
/// # Invariants
///
/// `dev` has a pool of peer-to-peer DMA memory for the lifetime of `'a`. `pagemap` is the pagemap
/// of `nr_pages` pages of that pool.
#[derive(Copy, Clone)]
pub struct Pool<'a> {
    dev: &'a Device<device::Bound>,
    pagemap: &'a DevPagemap,
    nr_pages: usize,
}

// SAFETY: The C functions for pools are not bound to a thread.
unsafe impl Send for Pool<'_> {}

// SAFETY: The C functions for pools may be called concurrently.
unsafe impl Sync for Pool<'_> {}

/// Where to look for the next folio of an allocation.
#[derive(Default)]
pub(super) struct Search(bindings::pci_p2pmem_search);

impl<'a> Pool<'a> {
    /// Publishes the pool of the device, with the memory of all calls of
    /// [`Device::p2pdma_add_resource`], so that other drivers find and use it, or hides it again.
    ///
    /// Publish memory only if peers may both read and write it. Hiding the pool does not affect
    /// memory that is allocated already. User space can map the memory through `p2pmem/allocate` in
    /// either case.
    ///
    /// C function: `pci_p2pmem_publish()`. May be called from any context.
    pub fn publish(&self, publish: bool) {
        // SAFETY: `self.dev.as_raw()` is a valid pointer to a `struct pci_dev`, which by the type
        // invariant of `Self` has a pool.
        unsafe { bindings::pci_p2pmem_publish(self.dev.as_raw(), publish) };
    }

    /// Returns the pagemap of the memory.
    #[inline]
    pub fn as_dev_pagemap(&self) -> &'a DevPagemap {
        self.pagemap
    }

    /// Returns the number of pages, whether they are in use or not.
    #[inline]
    pub fn nr_pages(&self) -> usize {
        self.nr_pages
    }

    /// Returns the number of pages that somebody has allocated, in whichever way.
    ///
    /// C function: `pci_p2pmem_available()`. May be called from any context.
    pub fn nr_used(&self) -> usize {
        // SAFETY: By the type invariant, the pagemap is one of a pool, whose device is bound.
        let free = unsafe { bindings::pci_p2pmem_available(self.pagemap.as_raw()) };

        self.nr_pages - (free >> PAGE_SHIFT)
    }

    /// Allocates a folio of `1 << order` pages of this memory for `user`, or of less if there is no
    /// such block.
    ///
    /// An `order` above [`MAX_ORDER`] counts as [`MAX_ORDER`]. The folio is aligned to its size,
    /// relative to the start of the memory. The result is the only reference to it. The memory
    /// holds zeros, or what `user` left there.
    ///
    /// `search` must be the same for several folios in a row, so that they do not all search the
    /// pool from its start.
    ///
    /// C function: `pci_p2pmem_alloc_folio()`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if no page is free.
    ///
    /// [`MAX_ORDER`]: crate::memremap::MAX_ORDER
    pub(super) fn alloc_folio(
        &self,
        order: u32,
        user: UserId,
        search: &mut Search,
    ) -> Result<ARef<DeviceFolio>> {
        let mut old = core::ptr::null_mut();

        // SAFETY: By the type invariant, the pagemap is one of a pool, whose device is bound.
        // `search` and `old` are valid.
        let folio = unsafe {
            bindings::pci_p2pmem_alloc_folio(
                self.pagemap.as_raw(),
                order,
                &mut search.0,
                Contents::from(user).into_word(),
                &mut old,
            )
        };
        let folio = NonNull::new(folio).ok_or(ENOSPC)?;
        // SAFETY: The folio belongs to the pagemap, which is one of peer-to-peer DMA memory. It
        // comes with a reference, which the `ARef` gets.
        let folio = unsafe { ARef::<DeviceFolio>::from_raw(folio.cast()) };

        Contents::from_word(old).prepare(&folio, user);
        Ok(folio)
    }

    /// Clears free memory like [`Pagemap::clean`].
    ///
    /// C function: `pci_p2pmem_is_free()`.
    ///
    /// # Safety
    ///
    /// `user` must not allocate memory of the pool any more.
    ///
    /// [`Pagemap::clean`]: crate::memremap::Pagemap::clean
    pub(super) unsafe fn clean(
        &self,
        pages: Range<usize>,
        user: UserId,
        stop: &dyn Fn() -> bool,
    ) -> bool {
        if pages.end > self.nr_pages {
            return false;
        }

        let is_free = |block: Block| {
            // SAFETY: By the type invariant, the pagemap is one of a pool, whose device is bound.
            // `DevPagemap::clean` asks for blocks of this pagemap only.
            unsafe {
                bindings::pci_p2pmem_is_free(self.pagemap.as_raw(), block.first(), block.nr_units())
            }
        };
        let cleaning = Cleaning {
            user,
            is_free: &is_free,
            stop,
        };

        // SAFETY: These are pages of the pagemap, which is set up for as long as the device is
        // bound. All folios of a pool are made by `zone_device_folio_recycle()`, with NULL or a
        // `Contents`, after their pages have been taken from the pool. `pci_p2pmem_is_free()` is
        // meant for this. Free memory of a pool may be accessed: the processor accesses it as soon
        // as somebody allocates it. The caller promises the rest.
        unsafe { self.pagemap.clean(pages, &cleaning) }
    }

    /// Allocates `size` bytes, rounded up to whole pages, of contiguous memory.
    ///
    /// The memory comes from the pool of the device. It may be memory that another call of
    /// [`Device::p2pdma_add_resource`] has added.
    ///
    /// The memory is for use by the driver: for DMA by this and other devices to and from
    /// [`Mem::bus_address`], and for accesses by the CPU through [`Io`](crate::io::Io), which
    /// `&Mem` implements. It cannot be mapped into user space. It is not cleared.
    ///
    /// C function: `pci_alloc_p2pmem()`. May be called from any context except NMI.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if `size` is 0.
    /// - `ENOMEM` if the pool has no free range of that size.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::{
    ///     io::Io,
    ///     pci::p2pdma,
    ///     prelude::*,
    ///     sync::barrier, //
    /// };
    ///
    /// /// What a driver keeps of a device.
    /// struct MyData<'bound> {
    ///     pool: p2pdma::Pool<'bound>,
    ///     ring: p2pdma::Mem<'bound>,
    /// }
    ///
    /// /// Puts a descriptor ring into the device's own memory, where fetching it is cheap.
    /// fn ring<'bound>(pool: p2pdma::Pool<'bound>) -> Result<MyData<'bound>> {
    ///     let ring = pool.alloc(64 * 16)?;
    ///
    ///     ring.try_write32(0, 0)?;
    ///     // The memory may be write-combining: complete the write before the doorbell is written.
    ///     barrier::mb(barrier::Write);
    ///     pr_debug!("{} bytes, for the device at {:#x}\n", ring.size(), ring.bus_address());
    ///     Ok(MyData { pool, ring })
    /// }
    /// ```
    pub fn alloc(&self, size: usize) -> Result<Mem<'a>> {
        if size == 0 {
            return Err(EINVAL);
        }
        let size = page_align(size).ok_or(ENOMEM)?;

        // SAFETY: `self.dev.as_raw()` is a valid pointer to a `struct pci_dev`, which by the type
        // invariant of `Self` has a pool.
        let addr = unsafe { bindings::pci_alloc_p2pmem(self.dev.as_raw(), size) };
        let addr = NonNull::new(addr).ok_or(ENOMEM)?;

        let io = MmioRaw::new_region(addr.addr().get(), size).inspect_err(|_| {
            // SAFETY: The range has just been allocated from this pool with this size, and nothing
            // uses it.
            unsafe { bindings::pci_free_p2pmem(self.dev.as_raw(), addr.as_ptr(), size) };
        })?;

        // INVARIANT: The range has just been allocated, its size is a number of whole pages, and
        // nothing else owns it.
        Ok(Mem {
            dev: self.dev,
            addr,
            io,
        })
    }
}

/// A range of peer-to-peer DMA memory, allocated from a [`Pool`].
///
/// Dropping it returns the range to the pool; no device may access the range any more then. If it
/// is forgotten, unbinding the device waits forever.
///
/// If the BAR is prefetchable, the range is mapped write-combining: the processor may delay its
/// writes. Call [`barrier::mb`] with [`barrier::Write`] after the writes and before the register
/// access that tells the device of them, such as a write to a doorbell.
///
/// # Invariants
///
/// `addr` is the kernel's address of a range of whole pages that has been allocated from the pool
/// of `dev` and that `self` owns. `io` describes the same range.
///
/// [`barrier::mb`]: crate::sync::barrier::mb
/// [`barrier::Write`]: crate::sync::barrier::Write
pub struct Mem<'a> {
    dev: &'a Device<device::Bound>,
    addr: NonNull<c_void>,
    io: MmioRaw<Region>,
}

impl Mem<'_> {
    /// Returns the size of the memory in bytes, a multiple of the page size.
    #[inline]
    pub fn size(&self) -> usize {
        self.io.size()
    }

    /// Returns the address of the memory on the PCI bus.
    ///
    /// The address is for the device itself, and for peers whose DMA reaches the memory through
    /// switches only. A peer whose DMA passes through the host bridge needs an address of the DMA
    /// API.
    ///
    /// C function: `pci_p2pmem_virt_to_bus()`. May be called from any context.
    pub fn bus_address(&self) -> BusAddress {
        // SAFETY: By the type invariant, `self.addr` was allocated from the pool of `self.dev`. The
        // device is bound, and so still has this pool.
        unsafe { bindings::pci_p2pmem_virt_to_bus(self.dev.as_raw(), self.addr.as_ptr()) }
    }
}

impl<'a> IoBase<'a> for &'a Mem<'_> {
    type Backend = MmioBackend;
    type Target = Region;

    #[inline]
    fn as_view(self) -> Mmio<'a, Region> {
        // SAFETY: By the type invariant, `self.io` is a mapping of MMIO that `self` owns.
        unsafe { Mmio::from_raw(self.io) }
    }
}

// SAFETY: Any thread may access and free the memory.
unsafe impl Send for Mem<'_> {}

// SAFETY: A shared reference permits MMIO accesses only, which threads may do concurrently.
unsafe impl Sync for Mem<'_> {}

impl Drop for Mem<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the range was allocated with this size from the pool of
        // `self.dev`, and `self` owns it. The allocation holds a reference to the pagemap, and the
        // pool is not released before that is put here.
        unsafe { bindings::pci_free_p2pmem(self.dev.as_raw(), self.addr.as_ptr(), self.io.size()) };
    }
}
