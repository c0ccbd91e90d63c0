// SPDX-License-Identifier: GPL-2.0

//! Rust sample driver of a DMA client: QEMU's educational device.
//!
//! QEMU must be run with `-device edu`. The administrator binds the device, 1234:11e8, to the driver
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
    mem::{
        forget,
        offset_of, //
    },
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
/// another PCI function; with `EINTR` if a signal arrives; with `EIO` if the device does not
/// respond; with `ENODEV` if the device has been unbound. A part may have been copied then.
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
    /// Whether the device has stopped to respond.
    dead: bool,
}

impl Engine<'_> {
    /// Makes the device copy between its buffer, from byte `at` on, and memory.
    fn transfer(&mut self, at: usize, memory: DmaSegment, from_device: bool) -> Result {
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
            if self.bar.try_read64(regs::DMA_CMD)? & regs::DMA_CMD_RUN == 0 {
                return Ok(());
            }
        }
        self.dead = true;
        Err(EIO)
    }

    /// Makes the device copy between its buffer and all of `memory`.
    fn transfer_all(&mut self, memory: PinnedMapping<'_>, from_device: bool) -> Result {
        let mut at = 0;
        let done = memory.segments().try_for_each(|segment| {
            let start = at;

            at += segment.len;
            self.transfer(start, segment, from_device)
        });

        if self.dead {
            // The device may access the memory at any time: do not unmap it.
            forget(memory);
        }
        done
    }
}

/// What the ioctl needs of the device.
struct Edu<'a> {
    pdev: &'a pci::Device<Bound>,
    engine: Pin<KBox<Mutex<Engine<'a>>>>,
}

impl Edu<'_> {
    /// Copies `range`, which is not larger than the device's buffer, from `src` to `dst`. Fails
    /// with `EBUSY` if another task uses the device.
    fn copy(&self, src: &Arc<PinnedPages>, dst: &Arc<PinnedPages>, range: Range<usize>) -> Result {
        // Unbinding the device waits for this function. So do not wait for all who want to copy.
        let mut engine = self.engine.try_lock().ok_or(EBUSY)?;

        if engine.dead {
            return Err(EIO);
        }
        let src = PinnedMapping::new(self.pdev.as_ref(), src.clone(), range.clone())?;
        let dst = PinnedMapping::new(self.pdev.as_ref(), dst.clone(), range)?;

        engine.transfer_all(src, false)?;
        engine.transfer_all(dst, true)
    }
}

/// The driver.
struct EduDriver;

impl EduDriver {
    fn copy(request: &mut Request<'_, Self>) -> Result {
        let src = request.get::<u64>(offset_of!(Copy, src))?;
        let dst = request.get::<u64>(offset_of!(Copy, dst))?;
        let len = request.get::<u32>(offset_of!(Copy, len))? as usize;

        // Unbinding a device whose memory is pinned waits, so limit the time that this takes.
        if request.get::<u32>(offset_of!(Copy, reserved))? != 0 || !(1..=SZ_64K).contains(&len) {
            return Err(EINVAL);
        }

        let pin = |addr: u64, direction| {
            let addr = UserPtr::from_addr(usize::try_from(addr).map_err(|_| EFAULT)?);

            Ok::<_, Error>(Arc::new(PinnedPages::new(addr, len, direction)?, GFP_KERNEL)?)
        };
        let src = pin(src, DataDirection::ToDevice)?;
        let dst = pin(dst, DataDirection::FromDevice)?;
        let mut done = 0;

        while done < len {
            let next = (done + BUFFER_SIZE).min(len);

            if current!().signal_pending() {
                return Err(EINTR);
            }
            match request.enter(|edu| edu.copy(&src, &dst, done..next)) {
                Err(e) if e == EBUSY => fsleep(POLL),
                result => {
                    result?;
                    done = next;
                }
            }
        }
        Ok(())
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
            let engine = KBox::pin_init(new_mutex!(Engine { bar, dead: false }), GFP_KERNEL)?;

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

    fn dma_mask() -> Option<DmaMask> {
        DmaMask::try_new((*module_parameters::dma_bits.value_ref()).into()).ok()
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
            default: 28,
            description: "How wide addresses of DMA may be, as QEMU's option dma_mask says (28)",
        },
    },
}
