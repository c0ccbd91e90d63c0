// SPDX-License-Identifier: GPL-2.0

//! Pagemaps of the memory behind a BAR.

#[cfg(CONFIG_AUXILIARY_BUS)]
use crate::auxiliary;
use crate::{
    bindings,
    device,
    devres,
    error::to_result,
    memremap::{
        alignment,
        is_aligned,
        BuiltIn,
        CacheMode,
        PageAllocator,
        Pagemap, //
    },
    pci::{
        p2pdma::owner::Owner,
        Device, //
    },
    prelude::*, //
};
use core::{
    ops::Range,
    ptr::NonNull, //
};

impl Device<device::Core<'_>> {
    /// Creates `struct page`s for the part `range` of a BAR, in bytes from the start of the BAR.
    ///
    /// Only the driver allocates the pages, by [`Pagemap::alloc`]. The memory does not become part
    /// of the device's pool, and user space cannot access it unless the driver maps it.
    ///
    /// The pagemap exists until the device is unbound. It is released after the driver's data have
    /// been dropped. The release waits until all references to folios have been dropped, those for
    /// DMA included. A driver that maps pages into user space must remove the mappings before that,
    /// as [`mmap::Registration`] does.
    ///
    /// The device must decode memory accesses to the BAR, see [`Device::enable_device_mem`], until
    /// the pagemap has been released.
    ///
    /// C function: `memremap_pages()`. May sleep.
    ///
    /// # Errors
    ///
    /// The kernel log tells the cause of an `EINVAL`, and of most of the others.
    ///
    /// - `EINVAL` if `bar` is not a memory BAR with an address, if `range` is empty or exceeds the
    ///   BAR, or if the physical address or the size of the memory is not a multiple of
    ///   [`alignment`].
    /// - `EOPNOTSUPP` if `mode` is [`CacheMode::WriteCombine`] and the BAR is not prefetchable, if
    ///   the device's BARs cannot be mapped (`non_mappable_bars`), or if the architecture is
    ///   loongarch or s390.
    /// - `EBUSY` if a part of the memory has `struct page`s already, or if the kernel has mapped it
    ///   with a cache mode that is neither of the two.
    /// - `ENOMEM` if there is not enough memory, and other errors of `memremap_pages()`.
    ///
    /// [`mmap::Registration`]: super::mmap::Registration
    pub fn p2pdma_pagemap(&self, bar: u32, range: Range<u64>, mode: CacheMode) -> Result<&Pagemap> {
        self.p2pdma_pagemap_with(bar, range, mode, BuiltIn)
    }

    /// Like [`Device::p2pdma_pagemap`], with an allocator of the driver's own.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::{
    ///     device::Core,
    ///     memremap::{
    ///         CacheMode,
    ///         PageAllocator,
    ///         Pagemap, //
    ///     },
    ///     mm::block_map::{
    ///         Block,
    ///         BlockMap, //
    ///     },
    ///     page::PAGE_SIZE,
    ///     pci,
    ///     prelude::*, //
    /// };
    ///
    /// struct Pages(BlockMap);
    ///
    /// impl PageAllocator for Pages {
    ///     fn alloc(&self, order: u32) -> Option<Block> {
    ///         self.0.alloc_up_to(order)
    ///     }
    ///
    ///     fn free(&self, block: Block) {
    ///         let _ = self.0.free(block);
    ///     }
    /// }
    ///
    /// fn add<'bound>(pdev: &'bound pci::Device<Core<'_>>) -> Result<&'bound Pagemap<Pages>> {
    ///     let len = pdev.resource_len(2)?;
    ///     let pages = Pages(BlockMap::new(usize::try_from(len)? / PAGE_SIZE, GFP_KERNEL)?);
    ///
    ///     pdev.enable_device_mem()?;
    ///     pdev.p2pdma_pagemap_with(2, 0..len, CacheMode::Uncached, pages)
    /// }
    /// ```
    pub fn p2pdma_pagemap_with<A: PageAllocator>(
        &self,
        bar: u32,
        range: Range<u64>,
        mode: CacheMode,
        allocator: A,
    ) -> Result<&Pagemap<A>> {
        create(self, bar, range, mode, allocator)
    }
}

#[cfg(CONFIG_AUXILIARY_BUS)]
impl auxiliary::Device<device::Core<'_>> {
    /// Like [`Device::p2pdma_pagemap`], for memory of the PCI function that is the parent.
    ///
    /// The pagemap exists until this device is unbound, which is before its parent is. It is
    /// released after the data of this device's driver have been dropped.
    ///
    /// The parent must decode memory accesses to the BAR for as long as it has the auxiliary
    /// device.
    ///
    /// # Errors
    ///
    /// Those of [`Device::p2pdma_pagemap`], and:
    ///
    /// - `EINVAL` if the parent is no PCI function.
    /// - `EOPNOTSUPP` if the driver of the parent is written in C and has not called
    ///   `pci_p2pdma_lend()`. It might leave the deletion of its children to devres, which would
    ///   release what pagemaps need before that.
    /// - `EBUSY` if a part of the memory belongs to a pagemap of another child.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::{
    ///     auxiliary,
    ///     device::{
    ///         Bound,
    ///         Core, //
    ///     },
    ///     memremap::{
    ///         CacheMode,
    ///         Pagemap, //
    ///     },
    ///     pci,
    ///     prelude::*, //
    /// };
    ///
    /// /// Creates the pages of all of BAR 2 of the parent.
    /// fn add<'bound>(adev: &'bound auxiliary::Device<Core<'_>>) -> Result<&'bound Pagemap> {
    ///     let pdev: &pci::Device<Bound> = adev.parent().try_into()?;
    ///
    ///     adev.p2pdma_pagemap(2, 0..pdev.resource_len(2)?, CacheMode::Uncached)
    /// }
    /// ```
    pub fn p2pdma_pagemap(&self, bar: u32, range: Range<u64>, mode: CacheMode) -> Result<&Pagemap> {
        self.p2pdma_pagemap_with(bar, range, mode, BuiltIn)
    }

    /// Like [`auxiliary::Device::p2pdma_pagemap`], with an allocator of the driver's own.
    pub fn p2pdma_pagemap_with<A: PageAllocator>(
        &self,
        bar: u32,
        range: Range<u64>,
        mode: CacheMode,
        allocator: A,
    ) -> Result<&Pagemap<A>> {
        self.lender()?;
        create(self, bar, range, mode, allocator)
    }
}

/// Creates a pagemap of memory of `owner.function()`. It exists until `owner` is unbound.
fn create<A: PageAllocator>(
    owner: &impl Owner,
    bar: u32,
    range: Range<u64>,
    mode: CacheMode,
    allocator: A,
) -> Result<&Pagemap<A>> {
    let pdev = owner.function()?;
    let (num, phys) = check(pdev, bar, &range)?;

    if mode == CacheMode::WriteCombine && !pdev.resource_is_prefetchable(bar)? {
        dev_err!(
            pdev,
            "BAR {bar} is not prefetchable, cannot map it write-combining\n"
        );
        return Err(EOPNOTSUPP);
    }

    // SAFETY: `pdev` is a valid device. The caller is the driver of `pdev`, or that of a child that
    // is deleted before devres of `pdev` releases anything: see `lender()`.
    to_result(unsafe { bindings::pcim_p2pdma_init(pdev.as_raw()) })?;
    // SAFETY: `pdev` is a valid device, for which `pcim_p2pdma_init()` has just succeeded. `num` is
    // the number of one of its BARs.
    let provider = unsafe { bindings::pcim_p2pdma_provider(pdev.as_raw(), num) };
    let provider = NonNull::new(provider).ok_or(EINVAL)?;

    // SAFETY: `provider` is that of the BAR. `check()` has checked that the range lies within the
    // BAR, is aligned, and is not empty. devres releases the provider when `pdev` has been unbound.
    // That is later than the pagemap is released: the pagemap either belongs to a child of `pdev`,
    // or is registered with devres of `pdev` after the provider.
    let pagemap = unsafe { Pagemap::new(provider, phys.clone(), mode, pdev.as_ref(), allocator) };
    let pagemap = KBox::pin_init::<Error>(pagemap, GFP_KERNEL).inspect_err(|e| {
        dev_err!(
            pdev,
            "cannot create pages for memory at {:#x} to {:#x} (BAR {bar}): {e:?}\n",
            phys.start,
            phys.end
        )
    })?;
    let ptr = NonNull::from(&*pagemap);
    devres::register::<_, Error>(owner.device(), Ok(pagemap), GFP_KERNEL)?;

    // SAFETY: The pagemap is pinned, and devres drops it after `owner` has been unbound. The result
    // has the lifetime of a reference to `owner` while it is bound.
    Ok(unsafe { ptr.as_ref() })
}

/// Checks whether `struct page`s can be created for the part `range` of a BAR.
///
/// Returns the number of the BAR and the physical address of the memory.
pub(super) fn check(pdev: &Device, bar: u32, range: &Range<u64>) -> Result<(c_int, Range<u64>)> {
    if bar >= bindings::PCI_STD_NUM_BARS {
        dev_err!(pdev, "there is no BAR {bar}\n");
        return Err(EINVAL);
    }
    let num = c_int::try_from(bar)?;

    // SAFETY: `pdev.as_raw()` is a valid pointer to a `struct pci_dev` by the type invariant,
    // and `num` is the number of one of its BARs.
    let flags = unsafe { bindings::pci_resource_flags(pdev.as_raw(), num) };
    // CAST: These are bits 9 and 29 of an `unsigned long`.
    if flags & bindings::IORESOURCE_MEM as c_ulong == 0
        || flags & bindings::IORESOURCE_UNSET as c_ulong != 0
    {
        dev_err!(pdev, "BAR {bar} is not a memory BAR with an address\n");
        return Err(EINVAL);
    }

    // The kernel maps device memory cached on these architectures, whichever mode is asked for.
    if cfg!(any(CONFIG_LOONGARCH, CONFIG_S390)) {
        return Err(EOPNOTSUPP);
    }

    // `pci_p2pdma_add_resource()` takes a size of 0 for the rest of the BAR, and adds size and
    // offset without checking for overflow.
    let len = pdev.resource_len(bar)?;
    if range.is_empty() || range.end > len {
        dev_err!(
            pdev,
            "range {range:#x?} is not within the {len:#x} bytes of BAR {bar}\n"
        );
        return Err(EINVAL);
    }
    let start = pdev.resource_start(bar)? + range.start;
    let end = start + (range.end - range.start);

    // `memremap_pages()` refuses misaligned memory with a warning.
    if !is_aligned(start) || !is_aligned(end) {
        dev_err!(
            pdev,
            "memory at {start:#x} to {end:#x} (BAR {bar}) is not aligned to {:#x}\n",
            alignment()
        );
        return Err(EINVAL);
    }
    Ok((num, start..end))
}
