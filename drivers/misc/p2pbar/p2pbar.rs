// SPDX-License-Identifier: GPL-2.0

//! Memory BARs of PCI devices as peer-to-peer DMA memory, with an allocator of the driver's own.
//!
//! Drivers of RDMA devices allocate the pages of a BAR themselves, rather than from the pool of
//! `pci_p2pdma_add_resource()`. This driver is an example for them. Its allocator is a bitmap. It
//! has two kinds of memory: memory of any size, and single pages like those of a User Access Region
//! (UAR), which a workqueue frees.
//!
//! The driver binds to QEMU's ivshmem. The administrator binds other devices to it through
//! `driver_override`. `include/uapi/linux/p2pmem.h` and `p2pbar.h` describe the interface for user
//! space.

use kernel::{
    device::{
        Bound,
        Core, //
    },
    ioctl,
    memremap::{
        alignment,
        CacheMode,
        FreeFolio,
        PageAllocator,
        Pagemap, //
    },
    mm::block_map::{
        Block,
        BlockMap, //
    },
    page::PAGE_SIZE,
    pci::{
        self,
        p2pdma::{
            self,
            mmap::{
                self,
                Lockdown,
                ObjectSize,
                Request,
                Source, //
            },
            MapType, //
        }, //
    },
    prelude::*,
    uapi, //
};

use core::{
    mem::offset_of,
    ops::Range, //
};

const PEER: u32 = ioctl::_IOWR::<uapi::p2pbar_peer>(uapi::P2PMEM_IOC_MAGIC, 3);

/// The allocator for the pages of one type of memory.
struct Pages {
    map: BlockMap,
    /// Whether the pages are UARs.
    uar: bool,
}

impl PageAllocator for Pages {
    const ACCESS_FREE: bool = true;

    fn alloc(&self, order: u32) -> Option<Block> {
        self.map.alloc_up_to(order)
    }

    fn free(&self, block: Block) {
        // This cannot fail: the pagemap frees only blocks that `alloc()` has returned, and once.
        let _ = self.map.free(block);
    }

    fn folio_free(&self, folio: FreeFolio) {
        if self.uar {
            folio.defer();
        }
    }

    fn folio_free_deferred(&self, folio: &mut FreeFolio) {
        // The driver of an RDMA device would send a command to the firmware here.
        folio.clear();
    }
}

/// The driver.
struct P2pbar;

impl P2pbar {
    fn peer(request: &mut Request<'_, Self>) -> Result {
        let domain = request.get(offset_of!(uapi::p2pbar_peer, domain))?;
        let bus = request.get::<u8>(offset_of!(uapi::p2pbar_peer, bus))?;
        let devfn = request.get(offset_of!(uapi::p2pbar_peer, devfn))?;

        if request.get::<u16>(offset_of!(uapi::p2pbar_peer, reserved))? != 0 {
            return Err(EINVAL);
        }
        let peer = pci::Device::by_address(domain, bus.into(), devfn).ok_or(ENOENT)?;
        let (distance, map_type) = request.enter_with_peer(&peer, |pdev, peer| {
            let own = (*pdev).into();

            Ok((
                p2pdma::distance(own, &[peer], false),
                p2pdma::map_type(own, peer),
            ))
        })?;

        let distance = distance.map_or(Ok(-1), i32::try_from)?;
        let map_type = match map_type {
            MapType::NotSupported => uapi::p2pbar_map_type_P2PBAR_MAP_NONE,
            MapType::BusAddr => uapi::p2pbar_map_type_P2PBAR_MAP_BUS_ADDR,
            MapType::ThruHostBridge => uapi::p2pbar_map_type_P2PBAR_MAP_THRU_HOST_BRIDGE,
        };

        request.set(offset_of!(uapi::p2pbar_peer, distance), distance)?;
        request.set(offset_of!(uapi::p2pbar_peer, map_type), map_type)
    }

    fn bind<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
    ) -> Result<mmap::Registration<'bound, Self>> {
        let bar = u32::from(*module_parameters::bar.value_ref());

        pdev.request_region(bar, c"p2pbar")
            .inspect_err(|e| dev_err!(pdev, "cannot reserve BAR {bar}: {e:?}\n"))?;
        pdev.enable_device_mem()?;

        let sources = Self::add_memory(pdev)?;
        mmap::Registration::new(pdev, &sources, |pdev| Ok(pdev))
    }

    fn add_pagemap<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        range: Range<u64>,
        mode: CacheMode,
        uar: bool,
    ) -> Result<&'bound Pagemap<Pages>> {
        let nr_pages = usize::try_from(range.end - range.start)? / PAGE_SIZE;
        let map = BlockMap::new(nr_pages, GFP_KERNEL)?;
        let bar = u32::from(*module_parameters::bar.value_ref());

        pdev.p2pdma_pagemap_with(bar, range, mode, Pages { map, uar })
    }

    /// Divides the BAR. Each of the two UAR types gets a sixteenth of it, rounded up to the
    /// alignment. If that is more than a quarter of the BAR, there are no UARs.
    fn add_memory<'bound>(pdev: &'bound pci::Device<Core<'_>>) -> Result<KVec<Source<'bound>>> {
        let mut sources = KVec::with_capacity(3, GFP_KERNEL)?;
        let bar = u32::from(*module_parameters::bar.value_ref());
        let len = pdev.resource_len(bar)?;
        // OVERFLOW: The BAR is part of the address space.
        let uar = (len / 16).next_multiple_of(alignment());

        if len / 4 < uar {
            let mem = Self::add_pagemap(pdev, 0..len, CacheMode::Uncached, false)?;

            sources.push(Source::pagemap(c"mem", mem), GFP_KERNEL)?;
            return Ok(sources);
        }

        let nc = len - 2 * uar;
        let wc = len - uar;
        let mem = Self::add_pagemap(pdev, 0..nc, CacheMode::Uncached, false)?;
        sources.push(Source::pagemap(c"mem", mem), GFP_KERNEL)?;

        let uar_nc = Self::add_pagemap(pdev, nc..wc, CacheMode::Uncached, true)?;
        sources.push(Source::pagemap(c"uar-nc", uar_nc), GFP_KERNEL)?;

        if pdev.resource_is_prefetchable(bar)? {
            let uar_wc = Self::add_pagemap(pdev, wc..len, CacheMode::WriteCombine, true)?;

            if uar_wc.mode() == CacheMode::WriteCombine {
                sources.push(Source::pagemap(c"uar-wc", uar_wc), GFP_KERNEL)?;
            }
        }
        Ok(sources)
    }
}

#[vtable]
impl mmap::Operations for P2pbar {
    /// The PCI function that has the memory.
    type RegistrationData<'a> = &'a pci::Device<Bound>;

    const NAME: &'static CStr = c"p2pbar";
    // The BAR may be any BAR of any device.
    const LOCKDOWN: Lockdown = Lockdown::Refuse;
    // Of `P2PBAR_MEM`, `P2PBAR_UAR_NC` and `P2PBAR_UAR_WC`, in this order.
    const TYPES: &'static [ObjectSize] = &[ObjectSize::Any, ObjectSize::Page, ObjectSize::Page];
    const IOCTLS: &'static [u32] = &[PEER];

    fn limit<'a>(_pdev: &&'a pci::Device<Bound>) -> usize {
        match *module_parameters::limit.value_ref() {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        }
    }

    fn ioctl(request: &mut Request<'_, Self>) -> Result {
        match request.cmd() {
            PEER => Self::peer(request),
            _ => Err(ENOTTY),
        }
    }
}

kernel::pci_device_table!(
    PCI_TABLE,
    <P2pbar as pci::Driver>::IdInfo,
    // QEMU's ivshmem: memory that is shared with the host.
    [(
        pci::DeviceId::from_id(pci::Vendor::REDHAT_QUMRANET, 0x1110),
        ()
    )]
);

impl pci::Driver for P2pbar {
    type IdInfo = ();
    type Data<'bound> = mmap::Registration<'bound, Self>;

    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        Self::bind(pdev)
    }
}

kernel::module_pci_driver! {
    type: P2pbar,
    name: "p2pbar",
    description: "Memory BARs as peer-to-peer DMA memory",
    license: "GPL v2",
    params: {
        bar: u8 {
            default: 2,
            description: "The BAR with the memory (2)",
        },
        limit: u64 {
            default: 0,
            description: "How many bytes an open file may allocate, 0 for all (0)",
        },
    },
}
