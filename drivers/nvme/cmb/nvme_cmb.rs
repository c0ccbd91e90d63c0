// SPDX-License-Identifier: GPL-2.0

//! Provider of peer-to-peer DMA memory for the Controller Memory Buffer of NVMe controllers.
//!
//! The Controller Memory Buffer (CMB) is memory on the controller behind one of its BARs. This
//! driver finds it and switches it on like `nvme_map_cmb()` of the `nvme` driver, and adds it as
//! peer-to-peer DMA memory. It leaves the controller itself alone, which need not be enabled for
//! that.
//!
//! User space can map the memory by way of `/dev/nvme-cmb<N>` in the same way as by way of the
//! `p2pmem/allocate` file in sysfs. Unlike what the latter gives, it is cleared.
//!
//! It binds only to controllers whose `driver_override` names it.
//!
//! Reference: NVM Express Base Specification, "Controller Properties" and "Controller Memory
//! Buffer".

use kernel::{
    debugfs,
    device::Core,
    devres,
    fmt,
    fs::File,
    io::Io,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration,
        MiscFile,
        MiscNumber,
        MiscNumbers, //
    },
    mm::virt::VmaDesc,
    page::PAGE_SIZE,
    pci::{
        self,
        p2pdma::{
            self,
            mmap::{
                Context,
                Domain,
                MapDevice, //
            },
            EndpointLock,
            MapType, //
        }, //
    },
    prelude::*,
    seq_file::SeqFile,
    str::CString,
    sync::{
        aref::ARef,
        Arc,
        ArcBorrow, //
    }, //
};

mod regs {
    use kernel::io::register;

    register! {
        /// Controller Capabilities (CAP), upper half.
        pub(super) CAP_HI(u32) @ 0x04 {
            /// Controller Memory Buffer Supported: the CMB has to be switched on in CMBMSC. Without
            /// it, as before version 1.4 of the specification, it always is.
            25:25 cmbs => bool;
        }

        /// Controller Status (CSTS).
        pub(super) CSTS(u32) @ 0x1c {
            31:0 value;
        }

        /// Controller Memory Buffer Location (CMBLOC).
        pub(super) CMBLOC(u32) @ 0x38 {
            /// Offset from the start of the BAR, in size units of CMBSZ.
            31:12 ofst;
            /// Base Indicator Register: the number of the BAR.
            2:0 bir;
        }

        /// Controller Memory Buffer Size (CMBSZ). All bits are 0 if there is no CMB.
        pub(super) CMBSZ(u32) @ 0x3c {
            /// Size in size units.
            31:12 sz;
            /// Size Units: the unit is 4 KiB, times 16 to the power of this.
            11:8 szu;
            /// Write Data Support: the CMB may hold data that the controller writes to media.
            4:4 wds => bool;
            /// Read Data Support: the CMB may take data that the controller reads from media.
            3:3 rds => bool;
        }

        /// Controller Memory Buffer Memory Space Control (CMBMSC), lower half.
        pub(super) CMBMSC_LO(u32) @ 0x50 {
            /// Controller Base Address, bits 31 to 12.
            31:12 cba;
            /// Controller Memory Space Enable: addresses from the base address on are the CMB.
            1:1 cmse => bool;
            /// Capabilities Registers Enabled: CMBLOC and CMBSZ show the CMB.
            0:0 cre => bool;
        }

        /// Controller Memory Buffer Memory Space Control (CMBMSC), upper half.
        pub(super) CMBMSC_HI(u32) @ 0x54 {
            /// Controller Base Address, bits 63 to 32.
            31:0 cba;
        }

        /// Controller Memory Buffer Status (CMBSTS).
        pub(super) CMBSTS(u32) @ 0x58 {
            /// Controller Base Address Invalid.
            0:0 cbai => bool;
        }
    }

    /// End of the registers that this driver uses.
    pub(super) const END: usize = 0x5c;
}

type Bar0<'a> = pci::Bar<'a, { regs::END }>;

/// The largest value of CMBSZ.SZU that is not reserved, for units of 64 GiB.
const SZU_MAX: u32 = 6;

/// The largest number of a BAR; the other values of CMBLOC.BIR are reserved.
const BIR_MAX: u32 = 5;

/// Where the CMB is, as the controller tells.
struct Location {
    /// The number of the BAR.
    bar: u32,
    /// The offset from the start of the BAR, in bytes.
    offset: u64,
    /// The size in bytes.
    size: u64,
    /// Whether the controller can both read data from it and write data to it.
    data: bool,
}

impl Location {
    /// Reads the location from the registers, and clips it to the BAR.
    ///
    /// `ENODEV` if the controller has no CMB, and `EINVAL` if it cannot be given `struct page`s.
    fn read(pdev: &pci::Device, bar0: &Bar0<'_>) -> Result<Self> {
        let cmbsz = bar0.read(regs::CMBSZ);
        if cmbsz.into_raw() == 0 {
            dev_err!(pdev, "controller has no Controller Memory Buffer\n");
            return Err(ENODEV);
        }

        let cmbloc = bar0.read(regs::CMBLOC);
        Self::decode(pdev, cmbsz, cmbloc).inspect_err(|_| {
            dev_err!(
                pdev,
                "cannot use Controller Memory Buffer: CMBSZ {:#x}, CMBLOC {:#x}\n",
                cmbsz.into_raw(),
                cmbloc.into_raw(),
            )
        })
    }

    /// The part of [`Self::read`] that does no I/O.
    fn decode(pdev: &pci::Device, cmbsz: regs::CMBSZ, cmbloc: regs::CMBLOC) -> Result<Self> {
        let szu = cmbsz.szu().get();
        let bar = cmbloc.bir().get();
        if szu > SZU_MAX || bar > BIR_MAX {
            return Err(EINVAL);
        }

        // OVERFLOW: A unit is at most 2^36 bytes, and the factors are of 20 bits.
        let unit = 1u64 << (12 + 4 * szu);

        let offset = unit * u64::from(cmbloc.ofst().get());
        let size = unit * u64::from(cmbsz.sz().get());

        let len = pdev.resource_len(bar)?;
        if size == 0 || offset >= len {
            return Err(EINVAL);
        }
        // The registers are not memory.
        if bar == 0 && offset < regs::END as u64 {
            return Err(EINVAL);
        }

        // The CMB may be larger than the BAR, for example below a bridge with a small window.
        let size = size.min(len - offset);

        let start = pdev.resource_start(bar)? + offset;
        if !p2pdma::is_aligned(start) || !p2pdma::is_aligned(size) {
            return Err(EINVAL);
        }

        Ok(Self {
            bar,
            offset,
            size,
            data: cmbsz.wds() && cmbsz.rds(),
        })
    }
}

/// The switch of the CMB, which is off again after a drop.
struct Switch {
    bar0: pci::DevresBar<{ regs::END }>,
    /// Whether there is a switch, rather than a CMB that always is on.
    cmbs: bool,
}

impl Switch {
    /// Makes the registers that describe the CMB readable.
    fn new(pdev: &pci::Device<Core<'_>>) -> Result<Self> {
        let mut switch = Self {
            bar0: pdev
                .iomap_region_sized::<{ regs::END }>(0, c"nvme_cmb")?
                .into_devres()?,
            cmbs: false,
        };
        let bar0 = switch.bar0.access(pdev.as_ref())?;

        if bar0.read(regs::CSTS).into_raw() == u32::MAX {
            dev_err!(pdev, "controller does not respond\n");
            return Err(ENODEV);
        }

        let cmbs = bar0.read(regs::CAP_HI).cmbs();
        if cmbs {
            bar0.write_reg(regs::CMBMSC_LO::zeroed().with_cre(true));
        }

        switch.cmbs = cmbs;
        Ok(switch)
    }

    /// Tells the controller that the CMB is at `cba` on the bus, a multiple of 4 KiB, and switches
    /// it on there.
    fn on(&self, pdev: &pci::Device<Core<'_>>, cba: u64) -> Result {
        if !self.cmbs {
            return Ok(());
        }

        let bar0 = self.bar0.access(pdev.as_ref())?;
        // CAST: These are the upper and the lower half of the address.
        let hi = regs::CMBMSC_HI::from((cba >> 32) as u32);
        let lo = regs::CMBMSC_LO::from(cba as u32)
            .with_cre(true)
            .with_cmse(true);

        // The controller takes the address over with the write of the lower half.
        bar0.write_reg(hi);
        bar0.write_reg(lo);

        if bar0.read(regs::CMBMSC_HI).into_raw() != hi.into_raw()
            || bar0.read(regs::CMBMSC_LO).into_raw() != lo.into_raw()
            || bar0.read(regs::CMBSTS).cbai()
        {
            dev_err!(
                pdev,
                "controller refuses base address {:#x} of its CMB\n",
                cba
            );
            return Err(EIO);
        }

        Ok(())
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        if !self.cmbs {
            return;
        }

        if let Some(bar0) = self.bar0.try_access() {
            // The other way round, the CMB would be at another address for a moment.
            bar0.write_reg(regs::CMBMSC_LO::zeroed());
            bar0.write_reg(regs::CMBMSC_HI::zeroed());
        }
    }
}

/// Checks that memory of `pool` holds what is written to it, and is where the controller has been
/// told, which is at `cba` and the `size` bytes that follow.
fn check(pool: &p2pdma::Pool<'_>, cba: u64, size: u64) -> Result {
    let Ok(mem) = pool.alloc(PAGE_SIZE) else {
        // User space has been quick, and has got all of it.
        return Ok(());
    };

    if !(cba..cba + size).contains(&mem.bus_address()) {
        return Err(EIO);
    }

    for offset in [0, PAGE_SIZE - size_of::<u32>()] {
        for value in [0x5aa5_c33c_u32, !0x5aa5_c33c, 0] {
            mem.try_write32(value, offset)?;
            if mem.try_read32(offset)? != value {
                return Err(EIO);
            }
        }
    }

    Ok(())
}

/// Writes a line for each PCI function that is bound to a driver, and that nobody has locked just
/// now: its name, its distance from `provider` or -1 where it cannot reach the memory, how its DMA
/// would travel, and the closest provider.
fn peers(provider: &ARef<pci::Device>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // The provider may be being unbound, which waits for us.
    let Some(lock) = EndpointLock::try_new(provider) else {
        return Ok(());
    };

    for peer in pci::devices() {
        let peer: &pci::Device = &peer;

        let query = |endpoint| {
            (
                p2pdma::distance(lock.endpoint(), &[endpoint], false).map_or(-1, i64::from),
                p2pdma::map_type(lock.endpoint(), endpoint),
                p2pdma::find(&[endpoint]),
            )
        };
        let (distance, map_type, closest) = if core::ptr::eq::<pci::Device>(peer, &**provider) {
            query(lock.endpoint())
        } else {
            match EndpointLock::try_new(peer) {
                Some(lock) => query(lock.endpoint()),
                None => continue,
            }
        };

        let map_type = match map_type {
            MapType::NotSupported => "not-supported",
            MapType::BusAddr => "bus-address",
            MapType::ThruHostBridge => "host-bridge",
        };
        f.write_fmt(fmt!("{} {distance} {map_type} ", peer.as_ref().name()))?;
        match closest {
            Some(closest) => f.write_fmt(fmt!("{}\n", (*closest).as_ref().name()))?,
            None => f.write_str("-\n")?,
        }
    }

    Ok(())
}

/// A `/dev/nvme-cmb<N>`. All that an open file has is a [`Context`].
struct NvmeCmbNode;

#[vtable]
impl MiscDevice for NvmeCmbNode {
    type Ptr = Arc<Context>;
    type RegistrationData = Arc<Domain>;

    fn open(file: &File, misc: &MiscDeviceRegistration<Self>) -> Result<Arc<Context>> {
        Context::open(misc.data(), misc, file, usize::MAX)
    }

    fn mmap_prepare(
        context: ArcBorrow<'_, Context>,
        _file: &File,
        desc: &VmaDesc<MiscFile<Self>>,
    ) -> Result {
        context.mmap_prepare(desc)
    }

    fn show_fdinfo(context: ArcBorrow<'_, Context>, m: &SeqFile, _file: &File) {
        context.show_fdinfo(m);
    }
}

impl MapDevice for NvmeCmbNode {
    fn context(context: ArcBorrow<'_, Context>) -> Arc<Context> {
        context.into()
    }
}

/// The driver.
struct NvmeCmb;

/// What the driver keeps of a controller.
#[pin_data]
struct NvmeCmbData {
    #[pin]
    misc: MiscDeviceRegistration<NvmeCmbNode>,
    /// The folder of the controller in debugfs.
    debugfs: debugfs::Dir,
    #[pin]
    peers: debugfs::File<ARef<pci::Device>>,
    domain: Arc<Domain>,
    // Dropped after `misc`, whose name has it.
    number: MiscNumber,
}

/// The numbers of the device nodes.
static NUMBERS: MiscNumbers = MiscNumbers::new();

// The driver takes no controller by itself, and thus has no device IDs.
kernel::pci_device_table!(PCI_TABLE, <NvmeCmb as pci::Driver>::IdInfo, []);

impl NvmeCmb {
    /// Finds the CMB, switches it on, and adds it.
    fn add<'bound>(pdev: &'bound pci::Device<Core<'_>>) -> Result<p2pdma::Pool<'bound>> {
        pdev.enable_device_mem()?;

        let switch = Switch::new(pdev)?;
        let Location {
            bar,
            offset,
            size,
            data,
        } = Location::read(pdev, switch.bar0.access(pdev.as_ref())?)?;

        let cba = pdev.bus_address(bar)? + offset;
        if !p2pdma::is_aligned(cba) {
            dev_err!(pdev, "Controller Memory Buffer is misaligned on the bus\n");
            return Err(EINVAL);
        }
        switch.on(pdev, cba)?;

        // Resources are released in the reverse order: the CMB goes off after the memory is gone.
        devres::register(pdev.as_ref(), switch, GFP_KERNEL)?;

        let pool = pdev
            .p2pdma_add_resource(bar, offset..offset + size)
            .inspect_err(|e| {
                dev_err!(pdev, "failed to add the Controller Memory Buffer: {e:?}\n")
            })?;

        check(&pool, cba, size).inspect_err(|e| {
            dev_err!(pdev, "Controller Memory Buffer does not hold data: {e:?}\n")
        })?;

        pool.publish(data);
        dev_dbg!(
            pdev,
            "Controller Memory Buffer of {} MiB at offset {:#x} of BAR {}{}\n",
            size >> 20,
            offset,
            bar,
            if data { "" } else { ", not for data" },
        );

        Ok(pool)
    }
}

impl pci::Driver for NvmeCmb {
    type IdInfo = ();
    type Data<'bound> = NvmeCmbData;

    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            if pdev.pci_class() != pci::Class::STORAGE_EXPRESS {
                dev_err!(pdev, "not an NVMe controller\n");
                return Err(ENODEV);
            }

            let name = CString::try_from_fmt(fmt!("nvme_cmb-{}", pdev.as_ref().name()))?;
            let pool = Self::add(pdev)?;
            let domain = Domain::new(pdev, &[pool.into()])?;
            let shared = domain.clone();
            let number = NUMBERS.alloc()?;
            let node = CString::try_from_fmt(fmt!("nvme-cmb{}", number.get()))?;

            Ok(try_pin_init!(NvmeCmbData {
                number,
                debugfs: debugfs::Dir::new(&name),
                peers <- debugfs.read_callback_file(c"peers", ARef::from(&**pdev), &peers),
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
    type: NvmeCmb,
    name: "nvme_cmb",
    description: "NVMe Controller Memory Buffer as peer-to-peer DMA memory",
    license: "GPL v2",
}
