// SPDX-License-Identifier: GPL-2.0

//! Memory BARs of PCI devices as peer-to-peer DMA memory, with an allocator of its own.
//!
//! This is the shape of a driver that has always handed out pages of its BAR, as those of RDMA
//! devices do: the allocator is a bitmap, and not the pool that `pci_p2pdma_add_resource()` makes.
//! There is memory of any size, and there are single pages like those of a User Access Region
//! (UAR), which are taken back by a workqueue.
//!
//! It binds to QEMU's ivshmem, and to devices whose `driver_override` names it. What user space can
//! do is in `include/uapi/linux/p2pbar.h`.

use kernel::{
    debugfs,
    device::Core,
    fmt,
    fs::File,
    ioctl,
    memremap::{
        CacheMode,
        FreeFolio,
        Pagemap,
        PagemapOps, //
    },
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration,
        MiscFile,
        MiscNumber,
        MiscNumbers, //
    },
    mm::{
        block_map::{
            Block,
            BlockMap, //
        },
        virt::VmaDesc, //
    },
    page::PAGE_SIZE,
    pci::{
        self,
        p2pdma::{
            self,
            mmap::{
                Context,
                Domain,
                MapDevice,
                PageAllocator,
                Usage, //
            },
            EndpointLock,
            MapType, //
        }, //
    },
    prelude::*,
    security,
    seq_file::SeqFile,
    str::CString,
    sync::{
        Arc,
        ArcBorrow, //
    },
    uaccess::{
        UserPtr,
        UserSlice,
        UserSliceReader,
        UserSliceWriter, //
    },
    uapi, //
};

use core::mem::offset_of;

/// The kinds of memory; their numbers are those of the sources of the [`Domain`] as well.
const TYPES: [(u32, &str); 3] = [
    (uapi::p2pbar_type_P2PBAR_MEM, "mem"),
    (uapi::p2pbar_type_P2PBAR_UAR_NC, "uar-nc"),
    (uapi::p2pbar_type_P2PBAR_UAR_WC, "uar-wc"),
];

/// The pages of one kind of memory.
struct Pages {
    map: BlockMap,
    /// Whether they are UARs.
    uar: bool,
}

impl Pages {
    fn new(size: u64, uar: bool) -> Result<Self> {
        Ok(Self {
            map: BlockMap::new(usize::try_from(size)? / PAGE_SIZE, GFP_KERNEL)?,
            uar,
        })
    }

    fn release(&self, folio: FreeFolio) {
        let block = folio.block();

        // In this order, what the map says to be free is free in the pagemap.
        drop(folio);
        self.free_block(block);
    }
}

impl PagemapOps for Pages {
    fn folio_free(&self, folio: FreeFolio) {
        if self.uar {
            folio.defer();
        } else {
            self.release(folio);
        }
    }

    fn folio_free_deferred(&self, folio: FreeFolio) {
        // Here, an RDMA device's firmware would be told.
        folio.clear();
        self.release(folio);
    }
}

impl PageAllocator for Pages {
    fn alloc_block(&self, order: u32) -> Option<Block> {
        self.map.alloc_up_to(order)
    }

    fn free_block(&self, block: Block) {
        // The map tells if this goes wrong.
        let _ = self.map.free(block);
    }
}

/// An open file.
struct P2pbarFile {
    context: Arc<Context>,
    domain: Arc<Domain>,
}

/// Returns the part of a structure in user memory that starts at `offset`, to be written.
fn output(user: UserPtr, offset: usize, size: usize) -> UserSliceWriter {
    UserSlice::new(user.wrapping_byte_add(offset), size).writer()
}

impl P2pbarFile {
    fn alloc(&self, r: &mut UserSliceReader, user: UserPtr) -> Result {
        let (size, ty, reserved) = (r.read::<u64>()?, r.read::<u32>()?, r.read::<u32>()?);
        let ty = Self::check_type(ty, reserved)?;

        // The first type is memory of any size.
        if ty != 0 && size != PAGE_SIZE as u64 {
            return Err(EINVAL);
        }
        self.type_usage(ty)?.ok_or(EOPNOTSUPP)?;
        let offset = self.context.alloc(ty, usize::try_from(size)?)?;

        output(user, offset_of!(uapi::p2pbar_alloc, offset), 8)
            .write(&offset)
            .inspect_err(|_| {
                // Nobody knows of it.
                let _ = self.context.free(offset);
            })
    }

    fn free(&self, r: &mut UserSliceReader) -> Result {
        let (offset, reserved) = (r.read::<u64>()?, r.read::<u64>()?);

        if reserved != 0 {
            return Err(EINVAL);
        }
        // `ENODEV` once the device is gone.
        self.domain.usage(0)?;
        self.context.free(offset)
    }

    fn limit(&self, r: &mut UserSliceReader) -> Result {
        let (size, reserved) = (r.read::<u64>()?, r.read::<u64>()?);

        if reserved != 0 {
            return Err(EINVAL);
        }
        // `ENODEV` once the device is gone.
        self.domain.usage(0)?;
        self.context.lower_limit(usize::try_from(size)?)
    }

    fn peer(&self, r: &mut UserSliceReader, user: UserPtr) -> Result {
        let (domain, bus) = (r.read::<u32>()?, r.read::<u8>()?);
        let (devfn, reserved) = (r.read::<u8>()?, r.read::<u16>()?);

        if reserved != 0 {
            return Err(EINVAL);
        }
        let name = CString::try_from_fmt(fmt!(
            "{domain:04x}:{bus:02x}:{:02x}.{:x}",
            devfn >> 3,
            devfn & 7
        ))?;
        let peer = pci::devices()
            .find(|pdev| *(**pdev).as_ref().name() == *name)
            .ok_or(ENOENT)?;
        // Not bound, or locked just now.
        let lock = EndpointLock::try_new(&peer).ok_or(EBUSY)?;

        let (distance, map_type) = self.domain.with_endpoint(|own| {
            let peer = lock.endpoint();

            (
                p2pdma::distance(own, &[peer], false),
                p2pdma::map_type(own, peer),
            )
        })?;
        drop(lock);

        let map_type = match map_type {
            MapType::NotSupported => uapi::p2pbar_map_type_P2PBAR_MAP_NONE,
            MapType::BusAddr => uapi::p2pbar_map_type_P2PBAR_MAP_BUS_ADDR,
            MapType::ThruHostBridge => uapi::p2pbar_map_type_P2PBAR_MAP_THRU_HOST_BRIDGE,
        };
        let mut w = output(user, offset_of!(uapi::p2pbar_peer, distance), 8);

        w.write(&distance.map_or(Ok(-1), i32::try_from)?)?;
        w.write(&map_type)
    }

    fn info(&self, r: &mut UserSliceReader, user: UserPtr) -> Result {
        let (ty, reserved) = (r.read::<u32>()?, r.read::<u32>()?);
        let ty = Self::check_type(ty, reserved)?;
        let memory = self.type_usage(ty)?.unwrap_or_default();
        let own = self.context.usage();
        let mut w = output(user, offset_of!(uapi::p2pbar_info, size), 32);

        for size in [memory.size, memory.used, own.size, own.used] {
            w.write(&(size as u64))?;
        }
        Ok(())
    }

    /// Returns the numbers of a type of memory, if the device has got it.
    fn type_usage(&self, ty: usize) -> Result<Option<Usage>> {
        match self.domain.usage(ty) {
            Err(EINVAL) => Ok(None),
            usage => usage.map(Some),
        }
    }

    /// Returns the number of the source for that type.
    fn check_type(ty: u32, reserved: u32) -> Result<usize> {
        if reserved != 0 {
            return Err(EINVAL);
        }
        TYPES
            .iter()
            .position(|(known, _)| *known == ty)
            .ok_or(EINVAL)
    }
}

#[vtable]
impl MiscDevice for P2pbarFile {
    type Ptr = Arc<Self>;
    type RegistrationData = Arc<Domain>;

    fn open(file: &File, misc: &MiscDeviceRegistration<Self>) -> Result<Arc<Self>> {
        let domain = misc.data();

        // It may be any memory of any device.
        security::locked_down_pci_access()?;

        let limit = match *module_parameters::limit.value_ref() {
            0 => usize::MAX,
            limit => usize::try_from(limit)?,
        };
        let context = Context::open(domain, misc, file, limit)?;

        Ok(Arc::new(
            Self {
                context,
                domain: domain.clone(),
            },
            GFP_KERNEL_ACCOUNT,
        )?)
    }

    fn mmap_prepare(
        me: ArcBorrow<'_, Self>,
        _file: &File,
        desc: &VmaDesc<MiscFile<Self>>,
    ) -> Result {
        me.context.mmap_prepare(desc)
    }

    fn ioctl(me: ArcBorrow<'_, Self>, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        const MAGIC: u32 = uapi::P2PBAR_IOC_MAGIC;
        const ALLOC: u32 = ioctl::_IOWR::<uapi::p2pbar_alloc>(MAGIC, 0);
        const FREE: u32 = ioctl::_IOW::<uapi::p2pbar_free>(MAGIC, 1);
        const LIMIT: u32 = ioctl::_IOW::<uapi::p2pbar_limit>(MAGIC, 2);
        const PEER: u32 = ioctl::_IOWR::<uapi::p2pbar_peer>(MAGIC, 3);
        const INFO: u32 = ioctl::_IOWR::<uapi::p2pbar_info>(MAGIC, 4);

        let user = UserPtr::from_addr(arg);
        let mut r = UserSlice::new(user, ioctl::_IOC_SIZE(cmd)).reader();

        match cmd {
            ALLOC => me.alloc(&mut r, user)?,
            FREE => me.free(&mut r)?,
            LIMIT => me.limit(&mut r)?,
            PEER => me.peer(&mut r, user)?,
            INFO => me.info(&mut r, user)?,
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }

    fn show_fdinfo(me: ArcBorrow<'_, Self>, m: &SeqFile, _file: &File) {
        me.context.show_fdinfo(m);
    }
}

impl MapDevice for P2pbarFile {
    fn context(me: ArcBorrow<'_, Self>) -> Arc<Context> {
        me.context.clone()
    }
}

/// Writes a line for each kind of memory that there is.
fn memory(domain: &Arc<Domain>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (source, (_, name)) in TYPES.iter().enumerate() {
        if let Ok(usage) = domain.usage(source) {
            f.write_fmt(fmt!(
                "{name} size {} used {} objects {} mappings {}\n",
                usage.size,
                usage.used,
                usage.objects,
                usage.mappings
            ))?;
        }
    }
    Ok(())
}

/// What the driver keeps of a device.
#[pin_data]
struct P2pbarData {
    #[pin]
    misc: MiscDeviceRegistration<P2pbarFile>,
    /// The folder of the device in debugfs.
    debugfs: debugfs::Dir,
    #[pin]
    memory: debugfs::File<Arc<Domain>>,
    domain: Arc<Domain>,
    // Dropped after `misc`, whose name has it.
    number: MiscNumber,
}

/// The driver.
struct P2pbar;

/// The numbers of the device nodes.
static NUMBERS: MiscNumbers = MiscNumbers::new();

kernel::pci_device_table!(
    PCI_TABLE,
    <P2pbar as pci::Driver>::IdInfo,
    // QEMU's ivshmem: memory that is shared with the host.
    [(
        pci::DeviceId::from_id(pci::Vendor::REDHAT_QUMRANET, 0x1110),
        ()
    )]
);

impl P2pbar {
    fn add_pagemap<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        bar: u32,
        range: core::ops::Range<u64>,
        mode: CacheMode,
        uar: bool,
    ) -> Result<&'bound Pagemap<Pages>> {
        let pages = Pages::new(range.end - range.start, uar)?;

        pdev.p2pdma_add_pagemap(bar, range, mode, Ok::<_, Error>(pages))
    }

    /// Divides up the BAR: two sixteenths of it are for UARs, if that can be. One of these is left
    /// alone if it cannot be mapped write-combining.
    fn add<'bound>(pdev: &'bound pci::Device<Core<'_>>) -> Result<Arc<Domain>> {
        let bar = u32::from(*module_parameters::bar.value_ref());
        let len = pdev.resource_len(bar)?;
        let align = p2pdma::alignment();
        // OVERFLOW: The BAR is part of the address space.
        let uar = (len / 16).next_multiple_of(align);

        pdev.enable_device_mem()?;
        // Too small for three parts that are aligned: all of it is memory.
        if len / 4 < uar {
            let mem = Self::add_pagemap(pdev, bar, 0..len, CacheMode::Uncached, false)?;

            return Domain::new(pdev, &[mem.into()]);
        }

        let nc = len - 2 * uar;
        let wc = len - uar;
        let mem = Self::add_pagemap(pdev, bar, 0..nc, CacheMode::Uncached, false)?;
        let uar_nc = Self::add_pagemap(pdev, bar, nc..wc, CacheMode::Uncached, true)?;

        match Self::add_pagemap(pdev, bar, wc..len, CacheMode::WriteCombine, true) {
            Ok(uar_wc) => Domain::new(pdev, &[mem.into(), uar_nc.into(), uar_wc.into()]),
            Err(EOPNOTSUPP | EBUSY) => Domain::new(pdev, &[mem.into(), uar_nc.into()]),
            Err(e) => Err(e),
        }
    }
}

impl pci::Driver for P2pbar {
    type IdInfo = ();
    type Data<'bound> = P2pbarData;

    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            let domain = Self::add(pdev)
                .inspect_err(|e| dev_err!(pdev, "cannot add the memory of the BAR: {e:?}\n"))?;
            let number = NUMBERS.alloc()?;
            let node = CString::try_from_fmt(fmt!("p2pbar{}", number.get()))?;
            let folder = CString::try_from_fmt(fmt!("p2pbar-{}", pdev.as_ref().name()))?;
            let shared = domain.clone();

            dev_dbg!(
                pdev,
                "{node:?}: {} KiB of peer-to-peer DMA memory\n",
                domain.usage(0)?.size / 1024
            );
            Ok(try_pin_init!(P2pbarData {
                number,
                debugfs: debugfs::Dir::new(&folder),
                memory <- debugfs.read_callback_file(c"memory", domain.clone(), &memory),
                misc <- MiscDeviceRegistration::register(
                    MiscDeviceOptions::new(&node).mode(0o660).parent(pdev.as_ref()),
                    Ok::<_, Error>(shared),
                ),
                domain,
            }))
        })
    }

    fn unbind<'bound>(_pdev: &'bound pci::Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        this.domain.revoke();
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
