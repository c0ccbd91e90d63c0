// SPDX-License-Identifier: GPL-2.0

//! The device node, and the file operations that user space calls through it.

use super::{
    context::Context,
    debugfs::Debugfs,
    domain::Domain,
    names::Name,
    objects,
    request::{
        Request,
        MAX_ARG, //
    },
    source::Source,
    Lockdown,
    Operations, //
};
use crate::{
    device::{
        Bound,
        Device, //
    },
    devres::Devres,
    fs::File,
    ioctl::_IOC_SIZE,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration,
        MiscFile, //
    },
    mm::virt::VmaDesc,
    pci::p2pdma::Owner,
    prelude::*,
    security,
    seq_file::SeqFile,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};
use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    }, //
};

/// Revokes a domain when it is dropped.
struct Revoker(Arc<Domain>);

impl Drop for Revoker {
    fn drop(&mut self) {
        self.0.revoke();
    }
}

/// The parts of a registration, without its lifetime. They are dropped with the [`Registration`],
/// or by devres when the device is unbound, whichever comes first.
struct Owned<T: Operations> {
    // The fields are dropped in this order: the node and the debugfs files are removed, then the
    // memory is revoked. Nothing uses `_data` after that.
    _misc: Pin<KBox<MiscDeviceRegistration<'static, Node<T>>>>,
    _debugfs: Pin<KBox<Debugfs>>,
    _revoker: Revoker,
    _data: KBox<T::RegistrationData<'static>>,
    _name: Name,
}

/// A device node through which user space maps peer-to-peer DMA memory, or only calls ioctls if
/// there is no memory.
///
/// Dropping the registration removes the node and its debugfs files, and revokes all memory: from
/// then on, accesses to mappings get `SIGBUS`; `mmap()` on open files and [`Request::enter`] fail
/// with `ENODEV`. A process cannot delay this by keeping a file or a mapping. A reader of the
/// debugfs files, which is root, can: see [`mmap`](super). When the device is unbound, the release
/// of the memory waits for DMA that is under way, and for folios that the driver keeps.
///
/// If the registration is forgotten, devres does the same when the device is unbound.
///
/// The folder `p2pdma/<node>` in debugfs has two files. `memory` has a line for each source.
/// `peers` has a line for each PCI function that is bound to a driver.
pub struct Registration<'a, T: Operations> {
    _owned: Devres<Owned<T>>,
    _parent: PhantomData<&'a Device<Bound>>,
}

impl<'a, T: Operations> Registration<'a, T> {
    /// Checks the constants of `T` when the driver is compiled.
    const CHECKS: () = {
        let name = T::NAME.to_bytes();
        assert!(
            !name.is_empty() && !name[name.len() - 1].is_ascii_digit(),
            "NAME must not end in a digit"
        );

        let mut i = 0;
        while i < T::IOCTLS.len() {
            assert!(
                _IOC_SIZE(T::IOCTLS[i]) <= MAX_ARG,
                "the argument of an ioctl is too large"
            );
            assert!(
                !objects::handles(T::IOCTLS[i]),
                "an ioctl has the number of one that each node has"
            );
            i += 1;
        }
    };

    /// Creates the device node `T::NAME` followed by a number. For a child on the auxiliary bus,
    /// this is its id if that is free and below 1024; otherwise it is the lowest number that is
    /// free.
    ///
    /// `owner` is the device that the driver is bound to: the PCI function that has the memory, or
    /// a child of it on the auxiliary bus.
    ///
    /// Mapping a file at offset 0 allocates from the first of `sources`. User space allocates
    /// objects from any. Without sources, user space can only call the ioctls of the driver, and
    /// `mmap()` fails with `EINVAL`. This is for clients: devices that access the memory of others.
    ///
    /// `data` is called with `owner` and returns the registration data, which the methods of `T`
    /// get. The data may borrow from `owner`, but from nothing else with a lifetime, as they may
    /// be used until the device is unbound.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if there are more sources than [`Operations::TYPES`], or if one is the memory of
    ///   another function.
    /// - `ENOSPC` if all numbers of nodes are in use.
    /// - `ENOMEM` if there is not enough memory.
    /// - Those of `data`, and those of `misc_register()`.
    pub fn new<P: Owner>(
        owner: &'a P,
        sources: &[Source<'a>],
        data: impl for<'b> FnOnce(&'b P::Bound) -> Result<T::RegistrationData<'b>>,
    ) -> Result<Self> {
        let () = Self::CHECKS;
        // Only the callbacks of the bound driver get an `Owner`. So the code of `T` exists until
        // `owner` is unbound.
        let dev: &'a Device<Bound> = owner.device();
        let function: &Device<Bound> = owner.function()?.as_ref();

        if sources.len() > T::TYPES.len() {
            return Err(EINVAL);
        }
        for source in sources {
            if !ptr::eq::<Device>(source.backend().pagemap().device(), &**function) {
                return Err(EINVAL);
            }
        }

        let data = KBox::new(data(owner.bound())?, GFP_KERNEL)?;
        // SAFETY: Only the lifetime changes. The closure accepts any lifetime of its argument, so
        // the data borrow from nothing but `owner`, which exists for as long as it is bound. They
        // are dropped by this function, or with `Owned`, which is when `owner` is unbound, at the
        // latest.
        let data: KBox<T::RegistrationData<'static>> =
            unsafe { KBox::from_raw(KBox::into_raw(data).cast()) };
        let ptr = NonNull::from(&*data).cast();

        // SAFETY: `ptr` points to a `T::RegistrationData`, and only files of `Node<T>` below use
        // the domain. The `Revoker` calls `revoke()` before the data are dropped, and when `owner`
        // is unbound, at the latest. devres releases the sources later than that: those that belong
        // to `owner` were registered before `Owned`, and those of a child's function stay until
        // that is unbound. There are no others: sources of another function have been refused
        // above, and only the callbacks of another child have that child's pagemaps, but they do
        // not have `owner`.
        let domain = unsafe { Domain::new(sources, ptr) }?;
        let revoker = Revoker(domain.clone());
        let name = Name::new(T::NAME, owner.number())?;
        let debugfs = Debugfs::new(&name, &domain)?;
        // SAFETY: Only the lifetime changes. The misc device, which uses the reference, is
        // deregistered when `owner` is unbound, at the latest.
        let parent = unsafe { &*ptr::from_ref(dev) };
        let options = MiscDeviceOptions::new(&name).mode(T::MODE).parent(parent);
        let misc = KBox::pin_init::<Error>(
            MiscDeviceRegistration::register(options, Ok::<_, Error>(domain)),
            GFP_KERNEL,
        )?;

        Ok(Self {
            _owned: Devres::new(
                dev,
                Ok::<_, Error>(Owned {
                    _misc: misc,
                    _debugfs: debugfs,
                    _revoker: revoker,
                    _data: data,
                    _name: name,
                }),
            )?,
            _parent: PhantomData,
        })
    }
}

/// The misc device of a [`Registration`].
///
/// Drivers cannot name this type. So only the file operations of misc devices call its methods of
/// [`MiscDevice`], and only [`Registration::new`] creates such a misc device.
pub(super) struct Node<T>(PhantomData<T>);

#[vtable]
impl<T: Operations> MiscDevice for Node<T> {
    type Ptr = Arc<Context>;
    type RegistrationData = Arc<Domain>;
    type OwnerModule = T::OwnerModule;

    fn open(file: &File, misc: &MiscDeviceRegistration<'_, Self>) -> Result<Arc<Context>> {
        if T::LOCKDOWN == Lockdown::Refuse {
            security::locked_down_pci_access()?;
        }

        let domain = misc.data();
        let active = domain.enter()?;
        // SAFETY: `Registration::<T>::new` has created the domain, as it has registered the misc
        // device.
        let limit = unsafe { active.with_data::<T, _>(T::limit) };
        // SAFETY: `file` is valid. The VFS has set the field before it called this `open()`
        // operation, and does not change it while the operation runs.
        let mapping = unsafe { (*file.as_ptr()).f_mapping };

        // SAFETY: This is the `f_mapping` of the file that is being opened. `Self::release` is the
        // `release()` operation of the file, and calls `Context::release`.
        unsafe { Context::new(domain, &active, NonNull::new(mapping).ok_or(EINVAL)?, limit) }
    }

    fn release(context: Arc<Context>, _file: &File) {
        context.release();
    }

    fn mmap_prepare(
        context: ArcBorrow<'_, Context>,
        _file: &File,
        desc: &VmaDesc<MiscFile<Self>>,
    ) -> Result {
        context.mmap_prepare(desc)
    }

    fn ioctl(context: ArcBorrow<'_, Context>, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        match objects::ioctl(&context, T::TYPES, cmd, arg) {
            Some(done) => done.map(|()| 0),
            None => Request::<T>::handle(&context, cmd, arg),
        }
    }

    fn show_fdinfo(context: ArcBorrow<'_, Context>, m: &SeqFile, _file: &File) {
        context.show_fdinfo(m);
    }
}
