// SPDX-License-Identifier: GPL-2.0

//! DMA to pinned memory of user space.

use super::{
    attrs,
    DmaAddress, //
};
use crate::{
    alloc::Flags,
    bindings,
    device::{
        Bound,
        Device, //
    },
    error::to_result,
    mm::{
        pin::{
            Segment,
            Segments, //
        },
        PinnedPages, //
    },
    prelude::*,
    sync::Arc, //
};
use core::ops::Range;

/// Returns how to allocate memory for the list of segments.
fn flags() -> Flags {
    // User space chooses the size, so do not warn if it is too large.
    GFP_KERNEL_ACCOUNT | __GFP_NOWARN
}

/// A contiguous range of addresses that a device can access by DMA.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct DmaSegment {
    /// The address that the device has to use.
    pub addr: DmaAddress,
    /// The length in bytes. It is not 0.
    pub len: usize,
}

/// How a [`DmaSegment`] was mapped, and has to be unmapped.
enum Kind {
    /// By nothing: the peer's memory is accessed by its bus address.
    Bus,
    /// By `dma_map_phys()`, with these attributes.
    Phys(c_ulong),
    /// By `dma_iova_link()`, with these attributes.
    Iova(bindings::dma_iova_state, c_ulong),
}

/// Pinned memory that is mapped for DMA by a device.
///
/// The memory may be RAM or peer-to-peer DMA memory. The latter is accessed by bus addresses if the
/// path to it stays below one PCIe switch, or else through the host bridge. Physically contiguous
/// memory, for example that of a large folio, is one segment, unless it exceeds
/// `dma_max_mapping_size()`. An IOMMU can make one segment of memory that is not contiguous.
/// Segments are not limited to the maximum size of the device, see `dma_get_max_seg_size()`.
///
/// Dropping this unmaps the memory. The device must not use the addresses after that. If a PCI
/// function does not complete a transfer, the driver calls [`clear_master()`] before. If nothing
/// stops the device, the driver may forget the mapping: then the memory stays mapped and pinned
/// forever. If it is memory of another PCI function, unbinding that function then never completes.
///
/// On machines where DMA is not cache coherent, a buffer of RAM that a device writes to must be
/// aligned to `dma_get_cache_alignment()`, in its start and size: otherwise writes of the processor
/// to the same cache lines may be lost.
///
/// [`clear_master()`]: crate::pci::Device::clear_master
///
/// C functions: `pci_p2pdma_state()`, `dma_map_phys()`, `dma_iova_link()`. `block/blk-mq-dma.c`
/// maps requests in the same way.
///
/// # Invariants
///
/// Each of `segments` has been mapped for `dev` as its `Kind` says, in the direction of `pages`.
/// Its address is that of memory of `pages`.
pub struct PinnedMapping<'a> {
    segments: KVVec<(DmaSegment, Kind)>,
    dev: &'a Device<Bound>,
    // Unpinned after the segments have been unmapped. If the mapping is forgotten, so is this
    // reference, and the pages stay pinned.
    pages: Arc<PinnedPages>,
}

impl<'a> PinnedMapping<'a> {
    /// Maps the bytes in `range` of `pages` for DMA by `dev`, in the direction of `pages`.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if `range` is empty or exceeds the memory, or if `dev` cannot do DMA.
    /// - `EREMOTEIO` if a part of it is memory of a PCI function that `dev` cannot reach, because
    ///   there is no path or because of the DMA mask of `dev`.
    /// - `ENOMEM` if there is not enough memory, or not enough I/O virtual addresses.
    pub fn new(
        dev: &'a Device<Bound>,
        pages: Arc<PinnedPages>,
        range: Range<usize>,
    ) -> Result<Self> {
        // INVARIANT: There are no segments yet.
        let mut this = Self {
            segments: KVVec::new(),
            dev,
            pages: pages.clone(),
        };
        // SAFETY: `dev.as_raw()` is a valid pointer to a `struct device`.
        if unsafe { (*dev.as_raw()).dma_mask }.is_null() {
            return Err(EINVAL);
        }
        let mut state = bindings::pci_p2pdma_map_state::default();
        let mut segments = pages.segments(range).ok_or(EINVAL)?;

        while let Some(segment) = segments.clone().next() {
            match this.attrs(&mut state, &segment)? {
                Some(attrs) => this.map_run(&mut state, &mut segments, attrs)?,
                None => {
                    segments.next();
                    this.map_bus(&state, segment)?;
                }
            }
        }
        Ok(this)
    }

    /// Returns what the device has to access, in the order of the memory.
    pub fn segments(&self) -> impl Iterator<Item = DmaSegment> + '_ {
        self.segments.iter().map(|(segment, _)| *segment)
    }

    fn direction(&self) -> bindings::dma_data_direction {
        self.pages.direction().into()
    }

    /// Returns the attributes to map a segment with, or [`None`] if it is accessed by its bus
    /// address. `state` is that of an earlier segment, or zeroed.
    fn attrs(
        &self,
        state: &mut bindings::pci_p2pdma_map_state,
        segment: &Segment,
    ) -> Result<Option<c_ulong>> {
        // SAFETY: The device is bound. The page is pinned. The pin keeps the pagemap and the
        // provider of peer-to-peer DMA memory valid.
        match unsafe { bindings::pci_p2pdma_state(state, self.dev.as_raw(), segment.page.as_ptr()) }
        {
            bindings::pci_p2pdma_map_type_PCI_P2PDMA_MAP_NONE => Ok(Some(0)),
            bindings::pci_p2pdma_map_type_PCI_P2PDMA_MAP_THRU_HOST_BRIDGE => {
                Ok(Some(attrs::DMA_ATTR_MMIO.as_raw()))
            }
            bindings::pci_p2pdma_map_type_PCI_P2PDMA_MAP_BUS_ADDR => Ok(None),
            _ => Err(EREMOTEIO),
        }
    }

    /// Adds a segment that is accessed by its bus address, which is in `state`.
    fn map_bus(&mut self, state: &bindings::pci_p2pdma_map_state, segment: Segment) -> Result {
        // SAFETY: `pci_p2pdma_state()` has set `mem` to the provider of the segment's memory.
        let addr = unsafe { bindings::pci_p2pdma_bus_addr_map(state.mem, segment.phys) };
        // SAFETY: `self.dev.as_raw()` is a valid pointer to a `struct device`.
        let mask = unsafe { bindings::dma_get_mask(self.dev.as_raw()) };

        // Nothing can bounce this, so the device has to reach it.
        //
        // CAST: A `usize` is at most 64 bits wide.
        #[allow(clippy::useless_conversion)]
        if u64::from(addr) + (segment.len as u64 - 1) > mask {
            return Err(EREMOTEIO);
        }
        self.segments.push(
            (
                DmaSegment {
                    addr,
                    len: segment.len,
                },
                Kind::Bus,
            ),
            flags(),
        )?;
        Ok(())
    }

    /// Maps a segment by itself.
    fn map_phys(&mut self, mut segment: Segment, attrs: c_ulong) -> Result {
        let max = if attrs == 0 {
            // RAM may have to be bounced, which has a limit.
            //
            // SAFETY: `self.dev.as_raw()` is a valid pointer to a `struct device`.
            unsafe { bindings::dma_max_mapping_size(self.dev.as_raw()) }
        } else {
            usize::MAX
        };

        while segment.len != 0 {
            let len = segment.len.min(max);

            // Reserve room first, so that `push()` cannot fail after the mapping.
            self.segments.reserve(1, flags())?;
            // SAFETY: The device is bound. The memory is pinned. It stays pinned until it has been
            // unmapped, as `self` owns a reference to `pages`.
            let addr = unsafe {
                bindings::dma_map_phys(
                    self.dev.as_raw(),
                    segment.phys,
                    len,
                    self.direction(),
                    attrs,
                )
            };

            // SAFETY: `self.dev.as_raw()` is a valid pointer to a `struct device`.
            to_result(unsafe { bindings::dma_mapping_error(self.dev.as_raw(), addr) }).map_err(
                |e| {
                    // Memory of a peer is not bounced. Without an IOMMU, an error means that the
                    // address exceeds the DMA mask.
                    if attrs != 0 && !self.has_iommu() {
                        EREMOTEIO
                    } else {
                        e
                    }
                },
            )?;
            // INVARIANT: The memory has just been mapped.
            self.segments
                .push((DmaSegment { addr, len }, Kind::Phys(attrs)), flags())?;

            // CAST: A length is not wider than an address.
            segment.phys += len as bindings::phys_addr_t;
            segment.len -= len;
        }
        Ok(())
    }

    /// Returns the page size of the IOMMU minus 1, or 0 if no IOMMU can merge segments. Two
    /// segments can be merged if the end of the first and the start of the second have none of
    /// these bits set.
    fn merge_boundary(&self) -> bindings::phys_addr_t {
        // CAST: A mask is not wider than an address.
        //
        // SAFETY: `self.dev.as_raw()` is a valid pointer to a `struct device`.
        unsafe { bindings::dma_get_merge_boundary(self.dev.as_raw()) as bindings::phys_addr_t }
    }

    fn has_iommu(&self) -> bool {
        self.merge_boundary() != 0
    }

    /// Maps the first of `segments`, together with those after it that an IOMMU can merge with it,
    /// and removes them from `segments`. The first one needs `attrs`; only segments that need the
    /// same attributes are merged.
    fn map_run(
        &mut self,
        state: &mut bindings::pci_p2pdma_map_state,
        segments: &mut Segments<'_>,
        attrs: c_ulong,
    ) -> Result {
        let boundary = self.merge_boundary();
        let mut rest = segments.clone();
        let Some(first) = rest.next() else {
            return Ok(());
        };
        let mut nr_segments = 1;
        let mut total = first.len;
        let mut end = first.end();

        for segment in rest {
            if boundary == 0
                || (end | segment.phys) & boundary != 0
                || self.attrs(state, &segment)? != Some(attrs)
            {
                break;
            }
            nr_segments += 1;
            // OVERFLOW: The memory is part of the address space.
            total += segment.len;
            end = segment.end();
        }

        let again = segments.clone();
        let mut run = segments.by_ref().take(nr_segments);
        let mut iova = bindings::dma_iova_state::default();
        let dev = self.dev.as_raw();

        let has_iova = nr_segments > 1
            // SAFETY: The device is bound.
            && unsafe { bindings::dma_iova_try_alloc(dev, &mut iova, first.phys, total) };

        if !has_iova {
            return run.try_for_each(|segment| self.map_phys(segment, attrs));
        }

        let direction = self.direction();
        let mut mapped = 0;
        let link = || {
            // Reserve room first, so that `push()` cannot fail after the mapping.
            self.segments.reserve(1, flags())?;
            for segment in run {
                // SAFETY: `iova` has been allocated for `total` bytes, of which `mapped` have been
                // linked. The memory is pinned. It stays pinned until it has been unmapped, as
                // `self` owns a reference to `pages`.
                to_result(unsafe {
                    bindings::dma_iova_link(
                        dev,
                        &mut iova,
                        segment.phys,
                        mapped,
                        segment.len,
                        direction,
                        attrs,
                    )
                })?;
                mapped += segment.len;
            }
            // SAFETY: `total` bytes of `iova` have been linked.
            to_result(unsafe { bindings::dma_iova_sync(dev, &mut iova, 0, total) })
        };

        if let Err(e) = link() {
            // SAFETY: `mapped` bytes of `iova` have been linked, and no device has got its address.
            unsafe { bindings::dma_iova_destroy(dev, &mut iova, mapped, direction, attrs) };
            // `dma_iova_link()` refuses MMIO if it might have to bounce a part.
            if e != EPERM {
                return Err(e);
            }
            return again
                .take(nr_segments)
                .try_for_each(|segment| self.map_phys(segment, attrs));
        }

        let segment = DmaSegment {
            addr: iova.addr,
            len: total,
        };
        // INVARIANT: The memory has just been linked.
        self.segments
            .push((segment, Kind::Iova(iova, attrs)), flags())?;
        Ok(())
    }
}

impl Drop for PinnedMapping<'_> {
    fn drop(&mut self) {
        let dev = self.dev.as_raw();
        let direction = self.direction();

        for (segment, kind) in &mut self.segments {
            match kind {
                Kind::Bus => (),
                // SAFETY: By the type invariant, this is how the segment has been mapped.
                Kind::Phys(attrs) => unsafe {
                    bindings::dma_unmap_phys(dev, segment.addr, segment.len, direction, *attrs)
                },
                // SAFETY: By the type invariant, this is how the segment has been mapped.
                Kind::Iova(iova, attrs) => unsafe {
                    bindings::dma_iova_destroy(dev, iova, segment.len, direction, *attrs)
                },
            }
        }
    }
}
