// SPDX-License-Identifier: GPL-2.0

//! Peer-to-peer DMA between PCI devices.
//!
//! A *provider* is the driver of a device that has memory behind one of its BARs. It adds that
//! memory with [`Device::p2pdma_add_resource`], which gives it `struct page`s, so that the block
//! layer, `O_DIRECT` and the DMA API take it like ordinary memory, and which returns a [`Pool`] to
//! allocate from. A *client* is a device that reads or writes the memory by DMA. An *orchestrator*
//! picks a provider that suits its clients, by means of [`find`], [`distance`] and [`map_type`].
//!
//! Peer-to-peer memory is MMIO: the CPU may access it through I/O accessors only.
//!
//! C header: [`include/linux/pci-p2pdma.h`](srctree/include/linux/pci-p2pdma.h)
//!
//! Reference: <https://docs.kernel.org/driver-api/pci/p2pdma.html>

use super::{
    BusAddress,
    Device, //
};
use crate::{
    bindings,
    device,
    devres,
    error::to_result,
    io::{
        IoBase,
        Mmio,
        MmioBackend,
        MmioRaw,
        Region, //
    },
    memremap::{
        CacheMode,
        Pagemap,
        PagemapOps,
        PagemapRef, //
    },
    mm::Folio,
    page::{
        page_align,
        PAGE_SHIFT, //
    },
    prelude::*,
    sync::aref::ARef,
    types::NotThreadSafe, //
};
use core::{
    ops::Range,
    ptr::NonNull, //
};

pub mod mmap;

/// Returns whether a physical address or a size, in bytes, is aligned as memory that is to be given
/// `struct page`s has to be.
///
/// Both the start and the size of what is passed to [`Device::p2pdma_add_resource`] have to be. The
/// alignment is a property of the architecture: 2 MiB on all but powerpc.
///
/// C function: `memremap_compat_align()`. May be called from any context.
///
/// # Examples
///
/// ```
/// use kernel::{
///     pci::p2pdma,
///     sizes::SZ_1G, //
/// };
///
/// assert!(p2pdma::is_aligned(0));
/// assert!(p2pdma::is_aligned(SZ_1G as u64));
/// assert!(!p2pdma::is_aligned(SZ_1G as u64 + 1));
/// assert!(!p2pdma::is_aligned(512));
/// ```
pub fn is_aligned(value: u64) -> bool {
    value.is_multiple_of(alignment())
}

/// Returns the alignment that [`is_aligned`] is about, a power of two.
///
/// May be called from any context.
///
/// # Examples
///
/// ```
/// use kernel::pci::p2pdma;
///
/// assert!(p2pdma::alignment().is_power_of_two());
/// assert!(p2pdma::is_aligned(3 * p2pdma::alignment()));
/// ```
pub fn alignment() -> u64 {
    // CAST: An `unsigned long` is at most 64 bits wide.
    //
    // SAFETY: The function has no preconditions.
    unsafe { bindings::memremap_compat_align() as u64 }
}

/// Returns whether any of `range`, in bytes of physical address, has been given `struct page`s as
/// device memory.
pub(crate) fn has_pagemap(range: Range<u64>) -> bool {
    // All pagemaps start and end at subsections.
    // CAST: A subsection is 2 MiB.
    for addr in range.step_by(bindings::SUBSECTION_SIZE as usize) {
        // CAST: `PCI_P2PDMA` depends on `64BIT`.
        let pfn = (addr >> PAGE_SHIFT) as usize;

        // SAFETY: The function has no preconditions.
        let pgmap = unsafe { bindings::get_dev_pagemap(pfn) };
        if !pgmap.is_null() {
            // SAFETY: `pgmap` comes with a reference.
            unsafe { bindings::put_dev_pagemap(pgmap) };
            return true;
        }
    }

    false
}

impl Device<device::Core<'_>> {
    /// Adds the part `range` of a BAR, in bytes from its start, as peer-to-peer DMA memory.
    ///
    /// The memory joins the device's one pool, whichever BAR it is from, and shows up in the
    /// `p2pmem` folder of the device in sysfs, through which user space may map it from then on.
    /// It stays until the device is unbound: the device's resources are released after the
    /// driver's data, and only once every user has returned what it holds, pages that are under
    /// DMA included.
    ///
    /// The device must decode memory accesses to the BAR, see [`Device::enable_device_mem`], and
    /// must go on doing so until the memory is gone.
    ///
    /// C function: `pci_p2pdma_add_resource()`. May sleep.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if `bar` is not a memory BAR with an address, if `range` is empty or lies outside
    ///   of it, or if its physical address or its size is not aligned, see [`is_aligned`].
    /// - `EBUSY` if some of the memory has been added already, or is mapped with another cache
    ///   mode.
    /// - `EOPNOTSUPP` if the device's BARs cannot be mapped, and on loongarch and s390.
    /// - `ENOMEM` if there is not enough memory, and other errors of `memremap_pages()`.
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
        let (num, phys) = self.p2pdma_check(bar, &range)?;
        let size = usize::try_from(range.end - range.start)?;

        // SAFETY: `self` is a valid device, in a callback of its bus, as its context proves, which
        // has two consequences. The device lock is held, which serialises calls, as the function
        // asks for. And all that the function registers with devres is released after the
        // callback, when the device has been unbound.
        to_result(unsafe {
            bindings::pci_p2pdma_add_resource(self.as_raw(), num, size, range.start)
        })?;

        // CAST: `PCI_P2PDMA` depends on `64BIT`.
        //
        // SAFETY: The function has no preconditions.
        let pagemap = unsafe { bindings::get_dev_pagemap((phys.start >> PAGE_SHIFT) as usize) };
        // The memory has just been added.
        let pagemap = NonNull::new(pagemap).ok_or(ENODEV)?;
        // SAFETY: `pagemap` comes with a reference. The device keeps it until it has been unbound.
        unsafe { bindings::put_dev_pagemap(pagemap.as_ptr()) };

        // INVARIANT: `pci_p2pdma_add_resource()` has succeeded, and the pagemap is that of the
        // memory which it has added.
        Ok(Pool {
            dev: self,
            pagemap,
            nr_pages: size >> PAGE_SHIFT,
        })
    }

    /// Gives `struct page`s to the part `range` of a BAR, in bytes from its start, for a driver
    /// that has an allocator of its own.
    ///
    /// Unlike that of [`Device::p2pdma_add_resource`], the memory does not join a pool: it is the
    /// driver that hands out its pages, with [`Pagemap::hand_out`], and `ops` gets them back. For
    /// everything else, which is DMA by other devices first of all, there is no difference.
    ///
    /// Next to their `struct page`s, pages take 8 bytes each.
    ///
    /// The pagemap stays until the device is unbound: the device's resources are released after the
    /// driver's data, and this one only once every page that was handed out has come back. A
    /// driver that lets user space map pages has to take the mappings away before.
    ///
    /// The device must decode memory accesses to the BAR, see [`Device::enable_device_mem`], and
    /// must go on doing so until the memory is gone.
    ///
    /// C function: `memremap_pages()`. May sleep.
    ///
    /// # Errors
    ///
    /// The same as those of [`Device::p2pdma_add_resource`], those of the initialiser `ops`, and
    /// `EOPNOTSUPP` if `mode` is [`CacheMode::WriteCombine`] and the BAR is not prefetchable.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::{
    ///     device::Core,
    ///     memremap::{
    ///         CacheMode,
    ///         FreeFolio,
    ///         Pagemap,
    ///         PagemapOps, //
    ///     },
    ///     mm::block_map::BlockMap,
    ///     page::PAGE_SIZE,
    ///     pci,
    ///     prelude::*, //
    /// };
    ///
    /// /// An allocator of pages.
    /// struct Pages(BlockMap);
    ///
    /// impl PagemapOps for Pages {
    ///     fn folio_free(&self, folio: FreeFolio) {
    ///         let block = folio.block();
    ///
    ///         // First the pagemap, then the allocator: what it hands out must be free.
    ///         drop(folio);
    ///         let _ = self.0.free(block);
    ///     }
    /// }
    ///
    /// fn add<'bound>(
    ///     pdev: &'bound pci::Device<Core<'_>>,
    /// ) -> Result<&'bound Pagemap<Pages>> {
    ///     let len = pdev.resource_len(2)?;
    ///     let pages = Pages(BlockMap::new(usize::try_from(len)? / PAGE_SIZE, GFP_KERNEL)?);
    ///
    ///     pdev.enable_device_mem()?;
    ///     let pagemap: &Pagemap<Pages> =
    ///         pdev.p2pdma_add_pagemap(2, 0..len, CacheMode::Uncached, Ok::<_, Error>(pages))?;
    ///
    ///     let block = pagemap.data().0.alloc(0).ok_or(ENOSPC)?;
    ///     let folio = pagemap.hand_out(block)?;
    ///     assert_eq!(folio.order(), 0);
    ///     // The last reference: `folio_free()` is called.
    ///     drop(folio);
    ///     Ok(pagemap)
    /// }
    /// ```
    pub fn p2pdma_add_pagemap<T, E>(
        &self,
        bar: u32,
        range: Range<u64>,
        mode: CacheMode,
        ops: impl PinInit<T, E>,
    ) -> Result<&Pagemap<T>>
    where
        T: PagemapOps,
        Error: From<E>,
    {
        let (num, phys) = self.p2pdma_check(bar, &range)?;

        // Prefetchable means that reads have no side effects, and that writes may be merged.
        //
        // SAFETY: `self.as_raw()` is a valid pointer to a `struct pci_dev` by the type invariant,
        // and `num` is the number of one of its BARs.
        let flags = unsafe { bindings::pci_resource_flags(self.as_raw(), num) };
        // CAST: `IORESOURCE_PREFETCH` is bit 13.
        if mode == CacheMode::WriteCombine && flags & bindings::IORESOURCE_PREFETCH as c_ulong == 0
        {
            return Err(EOPNOTSUPP);
        }

        // SAFETY: `self` is a valid device, in a callback of its bus, as its context proves: the
        // device lock is held, which serialises calls.
        to_result(unsafe { bindings::pcim_p2pdma_init(self.as_raw()) })?;
        // SAFETY: The same, and `num` is the number of a BAR.
        let provider = unsafe { bindings::pcim_p2pdma_provider(self.as_raw(), num) };
        let provider = NonNull::new(provider).ok_or(EINVAL)?;

        // SAFETY: `provider` is that of the BAR, in which the range lies, and `p2pdma_check()` has
        // checked the range. devres keeps the provider, and releases it after the pagemap, which
        // is registered later. The pagemap is dropped then, or right here.
        let pagemap = unsafe { Pagemap::new(provider, phys, mode, self.as_ref(), ops) };
        let pagemap = KBox::pin_init::<Error>(pagemap, GFP_KERNEL)?;
        let ptr = NonNull::from(&*pagemap);
        devres::register::<_, Error>(self.as_ref(), Ok(pagemap), GFP_KERNEL)?;

        // SAFETY: The pagemap is pinned, and devres drops it when the device has been unbound,
        // which is after the lifetime of any reference to the bound device.
        Ok(unsafe { ptr.as_ref() })
    }

    /// Checks the part `range` of a BAR, for both of the above.
    ///
    /// Returns the number of the BAR and the physical address of the memory.
    fn p2pdma_check(&self, bar: u32, range: &Range<u64>) -> Result<(c_int, Range<u64>)> {
        if bar >= bindings::PCI_STD_NUM_BARS {
            return Err(EINVAL);
        }
        let num = c_int::try_from(bar)?;

        // SAFETY: `self.as_raw()` is a valid pointer to a `struct pci_dev` by the type invariant,
        // and `num` is the number of one of its BARs.
        let flags = unsafe { bindings::pci_resource_flags(self.as_raw(), num) };
        // CAST: `IORESOURCE_UNSET` is bit 29, and flags are an `unsigned long`.
        if flags & bindings::IORESOURCE_UNSET as c_ulong != 0 {
            return Err(EINVAL);
        }
        // CAST: `IORESOURCE_MEM` is bit 9.
        if flags & bindings::IORESOURCE_MEM as c_ulong == 0 {
            return Err(EINVAL);
        }

        // There, the kernel's mapping of the memory is cached, whatever one asks for.
        if cfg!(any(CONFIG_LOONGARCH, CONFIG_S390)) {
            return Err(EOPNOTSUPP);
        }

        // The C function takes a size of 0 for the rest of the BAR, and adds size and offset
        // without checking for overflow.
        if range.is_empty() || range.end > self.resource_len(bar)? {
            return Err(EINVAL);
        }
        let len = range.end - range.start;
        let start = self.resource_start(bar)? + range.start;

        // `memremap_pages()` refuses misaligned memory with a warning. It looks for other pagemaps
        // at both ends of the range only, and damages those that lie within.
        if !is_aligned(start) || !is_aligned(len) {
            return Err(EINVAL);
        }
        if has_pagemap(start..start + len) {
            return Err(EBUSY);
        }

        Ok((num, start..start + len))
    }
}

/// The pool of peer-to-peer DMA memory of a device.
///
/// It is obtained from [`Device::p2pdma_add_resource`]. Dropping it does nothing: the memory goes
/// when the device is unbound.
///
/// # Invariants
///
/// `dev` has a pool of peer-to-peer DMA memory, and keeps it for as long as it is bound. So it does
/// with `pagemap`, the pagemap of the memory that the pool was created with.
#[derive(Copy, Clone)]
pub struct Pool<'a> {
    dev: &'a Device<device::Bound>,
    pagemap: NonNull<bindings::dev_pagemap>,
    nr_pages: usize,
}

// SAFETY: All that can be done with the pool can be done by any thread.
unsafe impl Send for Pool<'_> {}

// SAFETY: Neither is there anything that threads cannot do at the same time.
unsafe impl Sync for Pool<'_> {}

impl<'a> Pool<'a> {
    /// Lets other drivers find and use the memory, or hides it from them again.
    ///
    /// Publish memory only if peers may both read and write it. Hiding it does not take away what
    /// has been allocated from it. Whether or not it is published, user space can map it through
    /// the `p2pmem/allocate` file.
    ///
    /// C function: `pci_p2pmem_publish()`. May be called from any context.
    pub fn publish(&self, publish: bool) {
        // SAFETY: `self.dev.as_raw()` is a valid pointer to a `struct pci_dev`, which by the type
        // invariant of `Self` has a pool.
        unsafe { bindings::pci_p2pmem_publish(self.dev.as_raw(), publish) };
    }

    /// Allocates a page that may be mapped into user space and pinned.
    ///
    /// It goes back to the pool when its last reference is gone, and the unbinding of the device
    /// waits for that. It is not cleared.
    ///
    /// C function: `pci_p2pmem_alloc_page()`. May sleep.
    ///
    /// Returns [`None`] if what it gets is memory that was added at another time, too.
    pub(crate) fn alloc_folio(&self) -> Option<ARef<Folio>> {
        // SAFETY: `self.dev.as_raw()` is a valid pointer to a `struct pci_dev`.
        let page = NonNull::new(unsafe { bindings::pci_p2pmem_alloc_page(self.dev.as_raw()) })?;

        // SAFETY: The page is of order 0, and hence the one page of its folio. It comes with a
        // reference, which is ours.
        let folio = unsafe { ARef::<Folio>::from_raw(page.cast()) };

        // Its pagemap may go earlier than this one, and must not wait for who relies on this one.
        let is_ours = folio
            .pagemap()
            .is_some_and(|pagemap| pagemap.as_raw() == self.pagemap.as_ptr());
        is_ours.then_some(folio)
    }

    /// Returns a reference to the pagemap, for [`VmaDesc::set_p2pdma_ops`].
    ///
    /// [`VmaDesc::set_p2pdma_ops`]: crate::mm::virt::VmaDesc::set_p2pdma_ops
    #[inline]
    pub fn as_pagemap_ref(&self) -> PagemapRef<'a> {
        // SAFETY: By the type invariant, the pagemap is there for as long as the device is bound.
        // `pci_p2pdma_add_resource()` has made it with the provider of the BAR as its owner.
        unsafe { PagemapRef::from_raw(self.pagemap) }
    }

    /// Allocates `size` bytes, rounded up to whole pages, of contiguous memory.
    ///
    /// It is for use by the driver: DMA by this and other devices to and from
    /// [`Mem::bus_address`], and accesses by the CPU through [`Io`](crate::io::Io), which `&Mem`
    /// implements. It cannot be mapped into user space. The memory is not cleared, and holds what
    /// its last user left there.
    ///
    /// C function: `pci_alloc_p2pmem()`. May be called from any context but NMI.
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
    ///     prelude::*, //
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
            // SAFETY: The range has just been allocated with this size.
            unsafe { bindings::pci_free_p2pmem(self.dev.as_raw(), addr.as_ptr(), size) };
        })?;

        // INVARIANT: The range has just been allocated, in units of pages, and we own it.
        Ok(Mem {
            dev: self.dev,
            addr,
            io,
        })
    }
}

/// A range of peer-to-peer DMA memory, allocated from a [`Pool`].
///
/// It goes back to the pool when it is dropped; by then no device may access it any more. If it is
/// never dropped, unbinding the device waits for it for ever.
///
/// # Invariants
///
/// `addr` is the address in the kernel of a range of whole pages that has been allocated from the
/// pool of `dev` and that `self` owns. `io` describes the same range.
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
    /// It is for the device itself, and for peers that reach it without passing through the host
    /// bridge. A peer that does pass through the bridge needs a DMA mapping of its own.
    ///
    /// C function: `pci_p2pmem_virt_to_bus()`. May be called from any context.
    pub fn bus_address(&self) -> BusAddress {
        // SAFETY: By the type invariant, `self.addr` was allocated from the pool of `self.dev`,
        // which is bound and hence has still got that pool.
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

// SAFETY: The memory may be accessed and freed from any thread.
unsafe impl Send for Mem<'_> {}

// SAFETY: A shared reference permits MMIO accesses only, which may be done from any thread.
unsafe impl Sync for Mem<'_> {}

impl Drop for Mem<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the range was allocated with this size from the pool of
        // `self.dev`, and is owned by `self`. The reference that the allocation took on the memory
        // keeps the pool in place until it is returned here.
        unsafe { bindings::pci_free_p2pmem(self.dev.as_raw(), self.addr.as_ptr(), self.io.size()) };
    }
}

/// A PCI function that stays bound to its driver for the lifetime `'a`.
///
/// Only then may one ask for the way to and from it: once a function has been removed, parts of
/// what was above it in the tree of buses are gone.
///
/// # Examples
///
/// ```
/// use kernel::pci::p2pdma::{
///     self,
///     Endpoint,
///     MapType, //
/// };
///
/// /// Picks the first peer that DMA from `own` can get to.
/// fn reachable<'a>(own: Endpoint<'_>, peers: &[Endpoint<'a>]) -> Option<Endpoint<'a>> {
///     peers
///         .iter()
///         .copied()
///         .find(|peer| p2pdma::map_type(own, *peer) != MapType::NotSupported)
/// }
/// ```
///
/// # Invariants
///
/// The device is that of a PCI function, and bound for the lifetime `'a`.
#[derive(Copy, Clone)]
#[repr(transparent)]
pub struct Endpoint<'a>(&'a device::Device);

impl<'a> From<&'a Device<device::Bound>> for Endpoint<'a> {
    #[inline]
    fn from(pdev: &'a Device<device::Bound>) -> Self {
        // INVARIANT: The function is bound, as its context proves.
        Self(pdev.as_ref())
    }
}

/// A lock on a PCI function of whichever driver, which keeps it from being unbound.
///
/// Hold it for short: not only do those wait who bind or unbind the function, or reset it. Others
/// who only try to lock it, like VFIO for a reset, do without if it is locked. If the lock is never
/// dropped, unbinding the function waits for ever.
///
/// # Invariants
///
/// The function is locked, by the current task, and bound.
pub struct EndpointLock<'a> {
    pdev: &'a Device,
    _not_send: NotThreadSafe,
}

impl<'a> EndpointLock<'a> {
    /// Locks `pdev`, or returns [`None`] if it is not bound, or if somebody else has locked it.
    ///
    /// This does not wait for the lock, so that it may be called in places for which `pdev` being
    /// unbound, under the same lock, waits in turn.
    ///
    /// C functions: `device_trylock()`, `device_is_bound()`. Process context only.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::pci::{
    ///     self,
    ///     p2pdma::EndpointLock, //
    /// };
    ///
    /// for pdev in pci::devices() {
    ///     if let Some(_lock) = EndpointLock::try_new(&pdev) {
    ///         assert!(EndpointLock::try_new(&pdev).is_none());
    ///     }
    /// }
    /// ```
    pub fn try_new(pdev: &'a Device) -> Option<Self> {
        let dev: &device::Device = pdev.as_ref();

        // SAFETY: `dev.as_raw()` is a valid pointer to a `struct device`.
        if unsafe { bindings::device_trylock(dev.as_raw()) } == 0 {
            return None;
        }

        // INVARIANT: We have just locked the function; whether it is bound is checked below, before
        // `lock` is handed out.
        let lock = Self {
            pdev,
            _not_send: NotThreadSafe,
        };

        // SAFETY: `dev.as_raw()` is a valid pointer to a `struct device`, which we have locked.
        unsafe { bindings::device_is_bound(dev.as_raw()) }.then_some(lock)
    }

    /// Returns the function as an endpoint.
    #[inline]
    pub fn endpoint(&self) -> Endpoint<'_> {
        // INVARIANT: By the type invariant, the function is bound. It stays so as long as it is
        // locked, which is until `self` is dropped: binding and unbinding is done under the lock.
        Endpoint(self.pdev.as_ref())
    }
}

impl Drop for EndpointLock<'_> {
    fn drop(&mut self) {
        let dev: &device::Device = self.pdev.as_ref();

        // SAFETY: By the type invariant, the current task has locked the device.
        unsafe { bindings::device_unlock(dev.as_raw()) };
    }
}

/// How DMA between a provider of peer-to-peer memory and a client travels.
///
/// C type: `enum pci_p2pdma_map_type`
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum MapType {
    /// There is no way: the DMA would have to pass through a host bridge that is not known to
    /// forward it. Mapping the memory for this client fails: with `EREMOTEIO` in the DMA API, with
    /// `EINVAL` in the block layer.
    NotSupported,

    /// Through switches only, with addresses of the PCI bus, see [`Mem::bus_address`].
    BusAddr,

    /// Through the host bridge, with addresses that come from the DMA API like those of system
    /// memory.
    ThruHostBridge,
}

/// Returns how DMA of `client` to the memory of `provider` travels.
///
/// The result is [`MapType::NotSupported`] if `provider` has not been set up for peer-to-peer DMA.
/// Otherwise it is remembered for the client's place on the bus, until the provider is unbound, and
/// DMA mappings go by it. When it has to be worked out, the kernel log tells what redirects the DMA
/// or is in its way.
///
/// C function: `pci_p2pdma_map_type()`. May sleep.
///
/// # Examples
///
/// ```
/// use kernel::pci::{
///     self,
///     p2pdma::{
///         self,
///         EndpointLock,
///         MapType, //
///     }, //
/// };
///
/// for pdev in pci::devices() {
///     let Some(lock) = EndpointLock::try_new(&pdev) else {
///         continue;
///     };
///     let pdev = lock.endpoint();
///
///     if p2pdma::distance(pdev, &[pdev], false).is_none() {
///         assert_eq!(p2pdma::map_type(pdev, pdev), MapType::NotSupported);
///     }
/// }
/// ```
// The C function is not exported to modules. Keep it from being inlined into one.
#[inline(never)]
pub fn map_type(provider: Endpoint<'_>, client: Endpoint<'_>) -> MapType {
    let mut provider = bindings::p2pdma_provider {
        owner: provider.0.as_raw(),
        // Only tells users of a mapping where the memory is on the bus.
        bus_offset: 0,
    };

    // SAFETY:
    // - `provider` is valid for the duration of the call. The function does not keep it, and only
    //   uses its `owner`, which is embedded in a `struct pci_dev` by the type invariant of
    //   `Endpoint`.
    // - `client.0.as_raw()` is a valid pointer to a `struct device`.
    // - By the type invariant of `Endpoint` both are bound. Hence all that is above the two in the
    //   tree of buses exists.
    // - The function reads what the owner has been set up with under RCU; `pci_p2pdma_release()`
    //   waits for readers before that is freed.
    // - For a host bridge it looks at the first function of the root bus. That it is not removed at
    //   that moment is up to the function, as for all its callers.
    match unsafe { bindings::pci_p2pdma_map_type(&mut provider, client.0.as_raw()) } {
        bindings::pci_p2pdma_map_type_PCI_P2PDMA_MAP_BUS_ADDR => MapType::BusAddr,
        bindings::pci_p2pdma_map_type_PCI_P2PDMA_MAP_THRU_HOST_BRIDGE => MapType::ThruHostBridge,
        _ => MapType::NotSupported,
    }
}

/// Returns the sum of the distances between `provider` and each of `clients`.
///
/// The distance of two functions is the number of steps between them in the tree of buses; that of
/// a function to itself is 0. The result is [`None`] if there are no clients, or if one of them
/// could not do DMA to memory of `provider`, were there any. With `verbose` the kernel log tells
/// all that is in the way, and without, some of it.
///
/// C function: `pci_p2pdma_distance_many()`. May sleep.
///
/// # Examples
///
/// ```
/// use kernel::pci::{
///     self,
///     p2pdma::{
///         self,
///         EndpointLock, //
///     }, //
/// };
///
/// for pdev in pci::devices() {
///     let Some(lock) = EndpointLock::try_new(&pdev) else {
///         continue;
///     };
///     let pdev = lock.endpoint();
///
///     assert_eq!(p2pdma::distance(pdev, &[], false), None);
///     if let Some(distance) = p2pdma::distance(pdev, &[pdev, pdev], false) {
///         assert_eq!(distance, 0);
///     }
/// }
/// ```
pub fn distance(provider: Endpoint<'_>, clients: &[Endpoint<'_>], verbose: bool) -> Option<u32> {
    let provider = <&Device>::try_from(provider.0).ok()?;
    let num = c_int::try_from(clients.len()).ok()?;

    // SAFETY:
    // - `provider.as_raw()` is a valid pointer to a `struct pci_dev`.
    // - `Endpoint` is a transparent wrapper of a reference to `device::Device`, and that one of
    //   `struct device`, hence `clients` has the layout of an array of `num` valid pointers to
    //   these. The function does not write to it.
    // - By the type invariant of `Endpoint` all of them are PCI functions, and bound. Hence all
    //   that is above them in the tree of buses exists. For what is beside them, see `map_type`.
    let distance = unsafe {
        bindings::pci_p2pdma_distance_many(
            provider.as_raw(),
            clients.as_ptr().cast_mut().cast(),
            num,
            verbose,
        )
    };

    // Negative if one of the clients is not compatible.
    u32::try_from(distance).ok()
}

/// Returns the provider of published memory that is closest to all of `clients`.
///
/// If several are equally close, one of them is chosen at random. The result is [`None`] if there
/// is none that all of `clients` can reach, or if there is not enough memory to search. The
/// reference keeps the device from being freed, but not from being unbound.
///
/// C function: `pci_p2pmem_find_many()`. May sleep.
///
/// # Examples
///
/// ```
/// use kernel::pci::{
///     self,
///     p2pdma::{
///         self,
///         EndpointLock, //
///     }, //
/// };
///
/// assert!(p2pdma::find(&[]).is_none());
///
/// for pdev in pci::devices() {
///     let Some(lock) = EndpointLock::try_new(&pdev) else {
///         continue;
///     };
///     let Some(provider) = p2pdma::find(&[lock.endpoint()]) else {
///         continue;
///     };
///
///     // If a provider was found, there is a way to it.
///     let provider_lock = EndpointLock::try_new(&provider);
///     if let Some(provider) = &provider_lock {
///         assert!(p2pdma::distance(provider.endpoint(), &[lock.endpoint()], false).is_some());
///     }
/// }
/// ```
pub fn find(clients: &[Endpoint<'_>]) -> Option<ARef<Device>> {
    let num = c_int::try_from(clients.len()).ok()?;

    // SAFETY:
    // - `Endpoint` is a transparent wrapper of a reference to `device::Device`, and that one of
    //   `struct device`, hence `clients` has the layout of an array of `num` valid pointers to
    //   these. The function does not write to it.
    // - By the type invariant of `Endpoint` all of them are PCI functions, and bound. Hence all
    //   that is above them in the tree of buses exists.
    //   For what is beside them, see `map_type`.
    // - The function finds the providers itself, and is responsible for them.
    let pdev = unsafe { bindings::pci_p2pmem_find_many(clients.as_ptr().cast_mut().cast(), num) };

    // SAFETY: The function returns NULL, or a valid pointer together with a reference, which now
    // belongs to the `ARef`. `Device` is a transparent wrapper of `struct pci_dev`.
    NonNull::new(pdev).map(|pdev| unsafe { ARef::from_raw(pdev.cast()) })
}
