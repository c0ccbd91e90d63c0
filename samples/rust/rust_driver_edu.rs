// SPDX-License-Identifier: GPL-2.0

//! Rust sample driver of a DMA client: QEMU's educational device.
//!
//! QEMU must be run with `-device edu,dma_mask=0xffffffffffffffff`, and the driver be loaded with
//! the parameter `dma_bits=64`. By default, the device ignores all but 28 bits of an address, and
//! so would access other memory. The administrator binds the device, 1234:11e8, to the driver
//! through `driver_override`.
//!
//! User space opens `/dev/edu<N>` and makes the device copy memory. The source and the destination
//! are memory of the process: RAM, or peer-to-peer DMA memory of other PCI functions, or a mixture
//! of both.
//!
//! The device has a buffer of 4 KiB. It copies up to 4 KiB at a time between its buffer and memory,
//! which takes a tenth of a second.

use kernel::{
    device::{
        Bound,
        Core, //
    },
    dma::{
        DataDirection,
        DmaMask,
        DmaSegment,
        PinnedMapping, //
    },
    io::{
        register,
        Io, //
    },
    ioctl,
    mm::PinnedPages,
    new_mutex,
    pci::{
        self,
        p2pdma::mmap::{
            self,
            Lockdown,
            Request, //
        }, //
    },
    prelude::*,
    sizes::SZ_64K,
    sync::{
        Arc,
        Mutex, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
    uaccess::UserPtr, //
};

use core::{
    mem::offset_of,
    ops::Range, //
};

/// The argument of the ioctl.
#[repr(C)]
struct Copy {
    /// The address of the source.
    src: u64,
    /// The address of the destination.
    dst: u64,
    /// How many bytes to copy, from 1 to 64 KiB.
    len: u32,
    /// Must be 0.
    reserved: u32,
}

/// Copies memory.
///
/// Fails with `EINVAL` if an argument is invalid; with `EFAULT` if the source cannot be read, or
/// the destination cannot be written; with `EREMOTEIO` if the device cannot reach the memory of
/// another PCI function; with `ENOMEM` if there is not enough memory; with `EINTR` if a signal
/// arrives; with `EIO` if the device does not respond; with `ENODEV` if the device has been
/// unbound. A part may have been copied then.
const COPY: u32 = ioctl::_IOW::<Copy>(b'e' as u32, 0);

mod regs {
    use super::*;

    register! {
        pub(super) ID(u32) @ 0x0 {
            31:24 major;
            23:16 minor;
            7:0 kind;
        }
    }

    // Registers of 64 bits. `register!` cannot describe them, as it does not know that the BAR is
    // aligned to 8 bytes.
    pub(super) const DMA_SRC: usize = 0x80;
    pub(super) const DMA_DST: usize = 0x88;
    pub(super) const DMA_COUNT: usize = 0x90;
    pub(super) const DMA_CMD: usize = 0x98;

    /// Starts a transfer. Clear when it has completed.
    pub(super) const DMA_CMD_RUN: u64 = 1 << 0;
    /// From the buffer of the device, rather than to it.
    pub(super) const DMA_CMD_FROM_DEVICE: u64 = 1 << 1;

    /// The value of `ID.kind`.
    pub(super) const EDU: u32 = 0xed;
    pub(super) const END: usize = 0xa0;
}

/// The buffer of the device: where it is for the DMA engine, and its size.
const BUFFER: Range<u64> = 0x40000..0x41000;
const BUFFER_SIZE: usize = (BUFFER.end - BUFFER.start) as usize;

/// How long to wait between two looks at the device.
const POLL: Delta = Delta::from_millis(2);
/// After how many looks to give up. A transfer should take 100 ms.
const NR_POLLS: usize = 1000;

/// The DMA engine.
struct Engine<'a> {
    bar: pci::Bar<'a, { regs::END }>,
    /// Whether the device has stopped responding.
    dead: bool,
}

impl Engine<'_> {
    fn is_running(&self) -> Result<bool> {
        Ok(self.bar.try_read64(regs::DMA_CMD)? & regs::DMA_CMD_RUN != 0)
    }

    /// Makes the device copy between its buffer, from byte `at` on, and memory.
    fn transfer(&self, at: usize, memory: DmaSegment, from_device: bool) -> Result {
        let buffer = BUFFER.start + at as u64;
        let (src, dst, command) = if from_device {
            (buffer, memory.addr, regs::DMA_CMD_FROM_DEVICE)
        } else {
            (memory.addr, buffer, 0)
        };

        self.bar.try_write64(src, regs::DMA_SRC)?;
        self.bar.try_write64(dst, regs::DMA_DST)?;
        self.bar.try_write64(memory.len as u64, regs::DMA_COUNT)?;
        self.bar
            .try_write64(command | regs::DMA_CMD_RUN, regs::DMA_CMD)?;

        for _ in 0..NR_POLLS {
            fsleep(POLL);
            if !self.is_running()? {
                return Ok(());
            }
        }
        Err(EIO)
    }

    /// Makes the device copy between its buffer and the bytes in `range` of `memory`.
    fn transfer_part(
        &self,
        memory: &PinnedMapping<'_>,
        range: &Range<usize>,
        from_device: bool,
    ) -> Result {
        let mut start = 0;

        for segment in memory.segments() {
            let part = range.start.max(start)..range.end.min(start + segment.len);

            if !part.is_empty() {
                let memory = DmaSegment {
                    addr: segment.addr + (part.start - start) as u64,
                    len: part.len(),
                };

                self.transfer(part.start - range.start, memory, from_device)?;
            }
            start += segment.len;
        }
        Ok(())
    }
}

/// What the ioctl needs of the device.
struct Edu<'a> {
    pdev: &'a pci::Device<Bound>,
    engine: Pin<KBox<Mutex<Engine<'a>>>>,
}

impl Edu<'_> {
    /// Copies `src` to `dst`, which have the same size. Fails with `EBUSY` if another task uses the
    /// device.
    fn copy(&self, src: Arc<PinnedPages>, dst: Arc<PinnedPages>) -> Result {
        // Unbinding the device waits for this function. So do not wait here for a lock that other
        // tasks hold during their copies.
        let mut engine = self.engine.try_lock().ok_or(EBUSY)?;

        if engine.dead {
            return Err(EIO);
        }

        let len = src.len();
        let src = PinnedMapping::new(self.pdev.as_ref(), src, 0..len)?;
        let dst = PinnedMapping::new(self.pdev.as_ref(), dst, 0..len)?;

        for start in (0..len).step_by(BUFFER_SIZE) {
            let range = start..len.min(start + BUFFER_SIZE);

            if current!().signal_pending() {
                return Err(EINTR);
            }
            engine
                .transfer_part(&src, &range, false)
                .and_then(|()| engine.transfer_part(&dst, &range, true))
                .inspect_err(|_| {
                    // The transfer may not have ended. See to it that the device does not access
                    // the memory any more before it is unmapped.
                    self.pdev.clear_master();
                    engine.dead = true;
                })?;
        }
        Ok(())
    }
}

/// The driver.
struct EduDriver;

impl EduDriver {
    fn copy(request: &mut Request<'_, Self>) -> Result {
        let src = request.get::<u64>(offset_of!(Copy, src))?;
        let dst = request.get::<u64>(offset_of!(Copy, dst))?;
        let len = request.get::<u32>(offset_of!(Copy, len))? as usize;

        // Unbinding a device waits while its memory is pinned. So limit the length of a copy.
        if request.get::<u32>(offset_of!(Copy, reserved))? != 0 || !(1..=SZ_64K).contains(&len) {
            return Err(EINVAL);
        }

        loop {
            let pin = |addr: u64, direction| {
                let addr = UserPtr::from_addr(usize::try_from(addr).map_err(|_| EFAULT)?);

                Ok::<_, Error>(Arc::new(
                    PinnedPages::new(addr, len, direction)?,
                    GFP_KERNEL,
                )?)
            };
            let src = pin(src, DataDirection::ToDevice)?;
            let dst = pin(dst, DataDirection::FromDevice)?;

            // This unpins the pages, also before the next attempt.
            match request.enter(|edu| edu.copy(src, dst)) {
                Err(e) if e == EBUSY => fsleep(POLL),
                result => return result,
            }
            if current!().signal_pending() {
                return Err(EINTR);
            }
        }
    }

    fn bind<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
    ) -> Result<mmap::Registration<'bound, Self>> {
        pdev.enable_device_mem()?;
        pdev.set_master();

        mmap::Registration::new(pdev, &[], |pdev| {
            let bar = pdev.iomap_region_sized::<{ regs::END }>(0, c"rust_driver_edu")?;

            if bar.read(regs::ID).kind() != regs::EDU {
                return Err(ENODEV);
            }
            let engine = Engine { bar, dead: false };

            // A driver before this one may have started a transfer.
            if engine.is_running()? {
                return Err(EBUSY);
            }
            let engine = KBox::pin_init(new_mutex!(engine), GFP_KERNEL)?;

            Ok(Edu { pdev, engine })
        })
    }
}

#[vtable]
impl mmap::Operations for EduDriver {
    type RegistrationData<'a> = Edu<'a>;

    const NAME: &'static CStr = c"edu";
    const LOCKDOWN: Lockdown = Lockdown::Allow;
    const IOCTLS: &'static [u32] = &[COPY];

    fn ioctl(request: &mut Request<'_, Self>) -> Result {
        match request.cmd() {
            COPY => Self::copy(request),
            _ => Err(ENOTTY),
        }
    }
}

// No device is bound to the driver automatically, so there are no device IDs.
kernel::pci_device_table!(PCI_TABLE, <EduDriver as pci::Driver>::IdInfo, []);

impl pci::Driver for EduDriver {
    type IdInfo = ();
    type Data<'bound> = mmap::Registration<'bound, Self>;

    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn dma_mask(_info: Option<&Self::IdInfo>) -> Result<Option<DmaMask>> {
        match *module_parameters::dma_bits.value_ref() {
            bits @ 32.. => DmaMask::try_new(bits.into()).map(Some),
            bits => {
                pr_err!("dma_bits is {bits}, but must be set to at least 32\n");
                Err(EINVAL)
            }
        }
    }

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        Self::bind(pdev)
    }
}

kernel::module_pci_driver! {
    type: EduDriver,
    name: "rust_driver_edu",
    description: "Rust sample: a client of peer-to-peer DMA",
    license: "GPL v2",
    params: {
        dma_bits: u8 {
            default: 0,
            description: "Number of bits in QEMU's option dma_mask; must be set, to at least 32",
        },
    },
}
