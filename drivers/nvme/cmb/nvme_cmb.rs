// SPDX-License-Identifier: GPL-2.0

//! Provider of peer-to-peer DMA memory for the Controller Memory Buffer of NVMe controllers.
//!
//! The Controller Memory Buffer (CMB) is memory on the controller behind one of its BARs. There are
//! two ways to use this driver:
//!
//! - For a controller that the `nvme` driver is bound to, it is bound to the auxiliary device that
//!   `nvme` creates for the CMB. The disk stays. `nvme` enables the CMB and adds it to the pool of
//!   the PCI function, from which this driver and others allocate.
//! - It is bound to the PCI function in place of `nvme`. Then it finds and enables the CMB like
//!   `nvme_map_cmb()`, and adds it to the pool. It does not enable the controller, which is not
//!   necessary for that, so there is no disk. It has no IDs of PCI devices: the administrator binds
//!   controllers to it through `driver_override`.
//!
//! User space maps the memory through `/dev/nvme-cmb<N>` as it does through `p2pmem/allocate` in
//! sysfs, or allocates objects by the ioctls of `include/uapi/linux/p2pmem.h`. Memory that the node
//! allocates is cleared, unless the same open file was the last to use it.
//!
//! Reference: NVM Express Base Specification, "Controller Properties" and "Controller Memory
//! Buffer".

use kernel::{
    auxiliary,
    device::Core,
    devres,
    driver,
    io::Io,
    memremap,
    page::PAGE_SIZE,
    pci::{
        self,
        p2pdma::{
            self,
            mmap, //
        }, //
    },
    prelude::*,
    InPlaceModule, //
};

const MODULE_NAME: &CStr = <LocalModule as kernel::ModuleMetadata>::NAME;

mod regs {
    use kernel::io::register;

    register! {
        /// Controller Capabilities (CAP), upper half.
        pub(super) CAP_HI(u32) @ 0x04 {
            /// Controller Memory Buffer Supported: the CMB has to be enabled in CMBMSC. If the bit
            /// is clear, as before version 1.4 of the specification, the CMB is always enabled.
            25:25 cmbs => bool;
            /// Doorbell Stride: the distance of doorbells is 4 bytes times 2 to the power of this.
            3:0 dstrd;
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
            /// Controller Memory Space Enable: the CMB is at the base address.
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

    /// Start of the doorbells.
    pub(super) const DOORBELLS: u64 = 0x1000;
}

type Bar0<'a> = pci::Bar<'a, { regs::END }>;

/// The largest value of CMBSZ.SZU that is not reserved, for units of 64 GiB.
const SZU_MAX: u32 = 6;

/// The largest number of a BAR; the other values of CMBLOC.BIR are reserved.
const BIR_MAX: u32 = 5;

/// Where the CMB is, according to the registers of the controller.
struct Location {
    /// The number of the BAR.
    bar: u32,
    /// The offset from the start of the BAR, in bytes.
    offset: u64,
    /// The size in bytes.
    size: u64,
    /// Whether the CMB may hold both read data and write data (CMBSZ.RDS and CMBSZ.WDS).
    data: bool,
}

impl Location {
    /// Reads the location from the registers, and clips it to the BAR.
    ///
    /// Fails with `ENODEV` if the controller has no CMB, and with `EINVAL` if the CMB cannot get
    /// `struct page`s.
    fn read(pdev: &pci::Device, bar0: &Bar0<'_>) -> Result<Self> {
        let cmbsz = bar0.read(regs::CMBSZ);
        if cmbsz.into_raw() == 0 {
            dev_err!(pdev, "controller has no Controller Memory Buffer\n");
            return Err(ENODEV);
        }

        let cmbloc = bar0.read(regs::CMBLOC);
        let stride = 4 << bar0.read(regs::CAP_HI).dstrd().get();
        Self::decode(pdev, cmbsz, cmbloc, stride).inspect_err(|_| {
            dev_err!(
                pdev,
                "cannot use Controller Memory Buffer: CMBSZ {:#x}, CMBLOC {:#x}\n",
                cmbsz.into_raw(),
                cmbloc.into_raw(),
            )
        })
    }

    /// The part of [`Self::read`] that does no I/O. `stride` is the distance between doorbells, in
    /// bytes.
    fn decode(
        pdev: &pci::Device,
        cmbsz: regs::CMBSZ,
        cmbloc: regs::CMBLOC,
        stride: u64,
    ) -> Result<Self> {
        let szu = cmbsz.szu().get();
        let bar = cmbloc.bir().get();
        if szu > SZU_MAX || bar > BIR_MAX {
            return Err(EINVAL);
        }

        // OVERFLOW: A unit is at most 2^36 bytes, and both factors have 20 bits.
        let unit = 1u64 << (12 + 4 * szu);

        let offset = unit * u64::from(cmbloc.ofst().get());
        let size = unit * u64::from(cmbsz.sz().get());

        let len = pdev.resource_len(bar)?;
        if size == 0 || offset >= len {
            return Err(EINVAL);
        }
        // The CMB must not overlap the registers or the doorbells. Only an Admin command could tell
        // the number of doorbells. Check for the four that each controller has: for the submission
        // and completion queues of the Admin Queue and of one I/O queue.
        if bar == 0 && offset < regs::DOORBELLS + 4 * stride {
            return Err(EINVAL);
        }

        // The CMB may be larger than the BAR, for example below a bridge with a small window.
        let size = size.min(len - offset);

        let start = pdev.resource_start(bar)? + offset;
        if !memremap::is_aligned(start) || !memremap::is_aligned(size) {
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

/// Enables the CMB. Dropping this disables the CMB again.
struct Switch {
    bar0: pci::DevresBar<{ regs::END }>,
    /// CAP.CMBS: whether the CMB has to be enabled, rather than being enabled always.
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

    /// Enables the CMB at the bus address `cba`, a multiple of 4 KiB.
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

        // CMSE is in the lower half, so write the upper half of the address before.
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
            // Clear CMSE first: otherwise the CMB would move to another address for a moment.
            bar0.write_reg(regs::CMBMSC_LO::zeroed());
            bar0.write_reg(regs::CMBMSC_HI::zeroed());
        }
    }
}

/// Checks that memory of `pool` lies within the `size` bytes from the bus address `cba` on, and
/// that it holds what is written to it.
fn check(pool: &p2pdma::Pool<'_>, cba: u64, size: u64) -> Result {
    let Ok(mem) = pool.alloc(PAGE_SIZE) else {
        // User space has already allocated all of it through `p2pmem/allocate`.
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

/// The name of the memory in debugfs.
const SOURCE: &CStr = c"cmb";

/// The driver.
struct NvmeCmb;

/// A device node. When the controller or the child is unbound, the node is dropped, which revokes
/// the memory that user space has mapped.
type Node<'bound> = mmap::Registration<'bound, NvmeCmb>;

#[vtable]
impl mmap::Operations for NvmeCmb {
    type RegistrationData<'a> = ();

    const NAME: &'static CStr = c"nvme-cmb";
    // A CMB is memory by its specification.
    const LOCKDOWN: mmap::Lockdown = mmap::Lockdown::Allow;
}

// The administrator binds PCI functions to the driver, so there are no PCI IDs.
kernel::pci_device_table!(NO_IDS, <NvmeCmb as pci::Driver>::IdInfo, []);

impl NvmeCmb {
    /// Creates the device node of `owner`.
    fn node<'bound>(
        owner: &'bound impl p2pdma::Owner,
        source: mmap::Source<'bound>,
    ) -> Result<Node<'bound>> {
        Node::new(owner, &[source], |_| Ok(()))
    }

    /// Finds the CMB, enables it, and adds it to the pool of the device.
    fn add<'bound>(pdev: &'bound pci::Device<Core<'_>>) -> Result<p2pdma::Pool<'bound>> {
        if pdev.pci_class() != pci::Class::STORAGE_EXPRESS {
            dev_err!(pdev, "not an NVMe controller\n");
            return Err(ENODEV);
        }
        pdev.enable_device_mem()?;

        let switch = Switch::new(pdev)?;
        let Location {
            bar,
            offset,
            size,
            data,
        } = Location::read(pdev, switch.bar0.access(pdev.as_ref())?)?;

        let cba = pdev.bus_address(bar)? + offset;
        if !memremap::is_aligned(cba) {
            dev_err!(pdev, "Controller Memory Buffer is misaligned on the bus\n");
            return Err(EINVAL);
        }
        if bar != 0 {
            // `Switch` has reserved BAR 0.
            pdev.request_region(bar, c"nvme_cmb")
                .inspect_err(|e| dev_err!(pdev, "cannot reserve BAR {bar}: {e:?}\n"))?;
        }
        switch.on(pdev, cba)?;

        // devres releases resources in reverse order: the CMB is disabled after its memory has been
        // released.
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
    type Data<'bound> = Node<'bound>;

    const ID_TABLE: pci::IdTable<Self::IdInfo> = &NO_IDS;

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        Self::add(pdev).and_then(|pool| Self::node(pdev, mmap::Source::pool(SOURCE, pool)))
    }
}

kernel::auxiliary_device_table!(
    AUX_TABLE,
    <NvmeCmb as auxiliary::Driver>::IdInfo,
    // The child that the driver nvme creates for the CMB of a controller.
    [(auxiliary::DeviceId::new(c"nvme", c"cmb"), ())]
);

impl auxiliary::Driver for NvmeCmb {
    type IdInfo = ();
    type Data<'bound> = Node<'bound>;

    const ID_TABLE: auxiliary::IdTable<Self::IdInfo> = &AUX_TABLE;

    fn probe<'bound>(
        adev: &'bound auxiliary::Device<Core<'_>>,
        _info: &'bound Self::IdInfo,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        // The driver of the controller has enabled the CMB and added it to the pool.
        adev.p2pdma_pool(SOURCE)
            .and_then(|source| Self::node(adev, source))
    }
}

#[pin_data]
struct Module {
    #[pin]
    _pci: driver::Registration<pci::Adapter<NvmeCmb>>,
    #[pin]
    _aux: driver::Registration<auxiliary::Adapter<NvmeCmb>>,
}

impl InPlaceModule for Module {
    fn init(module: &'static kernel::ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _pci <- driver::Registration::new(MODULE_NAME, module),
            _aux <- driver::Registration::new(MODULE_NAME, module),
        })
    }
}

module! {
    type: Module,
    name: "nvme_cmb",
    description: "NVMe Controller Memory Buffer as peer-to-peer DMA memory",
    license: "GPL v2",
}
