// SPDX-License-Identifier: GPL-2.0

//! The memory of a registration, and its revocation.

use super::{
    cleaner::Gone,
    object::Backing,
    source::{
        Backend,
        Source,
        Usage, //
    },
    Operations, //
};
use crate::{
    bindings,
    fmt,
    list::{
        List,
        ListArc, //
    },
    new_mutex,
    new_srcu,
    page::PAGE_SHIFT,
    pci::p2pdma::Endpoint,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        srcu,
        Arc,
        Mutex,
        Srcu, //
    },
    workqueue::{
        impl_has_work,
        new_work,
        Work, //
    }, //
};
use core::{
    mem::{
        self,
        MaybeUninit, //
    },
    ptr::NonNull, //
};

/// The numbers of objects and of mappings.
pub(super) struct Counters {
    pub(super) objects: Atomic<usize>,
    pub(super) mappings: Atomic<usize>,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            objects: Atomic::new(0),
            mappings: Atomic::new(0),
        }
    }
}

/// A source and its counters.
///
/// # Invariants
///
/// `source` is initialised. It is valid until [`Domain::revoke`] has waited for the readers of
/// `Domain::srcu`, and must not be used later. The references in it dangle then. It is a
/// [`MaybeUninit`], as a dangling reference in a field is undefined behaviour even if nothing uses
/// it.
struct Entry {
    name: &'static CStr,
    source: MaybeUninit<Source<'static>>,
    counters: Counters,
}

/// An inode that has open files. All VMAs of these files are linked into the mapping of the inode.
///
/// # Invariants
///
/// `mapping` is the `f_mapping` of `files` open files. `files` is not 0.
struct Inode {
    mapping: NonNull<bindings::address_space>,
    files: usize,
}

/// The memory of a registration.
///
/// VMAs and open files hold references to the domain. So the domain may outlive the registration
/// and the device. The memory does not, see [`Domain::revoke`].
///
/// # Invariants
///
/// `data` points to the `T::RegistrationData` of the `Registration<T>` that has created the domain.
/// It is valid until [`Domain::revoke`] has waited for the readers of `srcu`.
#[pin_data]
pub(super) struct Domain {
    entries: KVec<Entry>,
    data: NonNull<c_void>,
    revoked: Atomic<bool>,
    #[pin]
    srcu: Srcu,
    /// Held by [`Domain::revoke`], so that a second caller waits for the first one.
    #[pin]
    revoking: Mutex<()>,
    /// The memory of all objects that exist, whether or not they can still be mapped.
    #[pin]
    backings: Mutex<List<Backing>>,
    /// Held while pages are unmapped, so that no file is released and no inode is freed meanwhile.
    #[pin]
    inodes: Mutex<KVec<Inode>>,
    /// The closed files whose memory `work` still has to clear.
    #[pin]
    pub(super) gone: Gone,
    #[pin]
    work: Work<Self>,
}

impl_has_work! {
    impl HasWork<Self> for Domain { self.work }
}

// SAFETY: `data` points to a `T::RegistrationData`, which is `Send`. Sources are `Send`. The
// pointers in `inodes` are not bound to a thread.
unsafe impl Send for Domain {}

// SAFETY: `data` points to a `T::RegistrationData`, which is `Sync`. The pointers in `inodes` are
// only compared, except by `revoke()`, which passes them to a function that any thread may call.
unsafe impl Sync for Domain {}

impl Domain {
    /// Creates a domain.
    ///
    /// # Safety
    ///
    /// - `data` must point to a `T::RegistrationData`. Only files of `Node<T>`, with the same `T`,
    ///   may use the domain.
    /// - [`Domain::revoke`] must be called before `data`, or anything that one of the sources
    ///   refers to, becomes invalid.
    pub(super) unsafe fn new(sources: &[Source<'_>], data: NonNull<c_void>) -> Result<Arc<Self>> {
        let mut entries = KVec::with_capacity(sources.len(), GFP_KERNEL)?;

        for &source in sources {
            let name = source.name();
            // SAFETY: Only the lifetime changes. The source is used through an `Active` only. The
            // caller promises to call `revoke()` before the source becomes invalid, and `revoke()`
            // waits until no `Active` exists.
            let source = unsafe { mem::transmute::<Source<'_>, Source<'static>>(source) };

            // INVARIANT: The source is initialised. The caller promises to call `revoke()` before
            // it becomes invalid.
            entries.push(
                Entry {
                    name,
                    source: MaybeUninit::new(source),
                    counters: Counters::new(),
                },
                GFP_KERNEL,
            )?;
        }
        // INVARIANT: The caller promises that `data` is of this type, and to call `revoke()` before
        // it becomes invalid.
        Arc::pin_init(
            try_pin_init!(Self {
                entries,
                data,
                revoked: Atomic::new(false),
                srcu <- new_srcu!(),
                revoking <- new_mutex!(()),
                backings <- new_mutex!(List::new()),
                inodes <- new_mutex!(KVec::new()),
                gone <- new_mutex!(List::new()),
                work <- new_work!("p2pdma::clean"),
            }),
            GFP_KERNEL,
        )
    }

    /// Gives access to the sources and the registration data, or fails with `ENODEV` if the domain
    /// has been revoked.
    pub(super) fn enter(&self) -> Result<Active<'_>> {
        let guard = self.srcu.read_lock();

        if self.revoked.load(Relaxed) {
            return Err(ENODEV);
        }
        // INVARIANT: `revoked` has just been seen clear in the critical section of `guard`.
        Ok(Active {
            domain: self,
            _guard: guard,
        })
    }

    /// Returns whether [`Domain::revoke`] has begun.
    pub(super) fn is_revoked(&self) -> bool {
        self.revoked.load(Relaxed)
    }

    /// Revokes all memory of user space.
    ///
    /// When this returns, accesses to mappings get `SIGBUS`, and [`Domain::enter`] fails. DMA to
    /// the memory may still be under way. May sleep. The caller must not own an [`Active`] of this
    /// domain.
    pub(super) fn revoke(&self) {
        let _revoking = self.revoking.lock();

        self.revoked.store(true, Relaxed);
        // A reader that does not see `revoked` set has entered before, and this waits until it has
        // left. From then on, nothing uses the sources or the registration data, or adds to
        // `backings` or `inodes`.
        self.srcu.synchronize();

        // A fault, or a running `mmap()`, that finds a folio maps its pages before it releases the
        // lock of the `Backing`. So when `clear()` returns, the pages are mapped already or never
        // will be. They are unmapped below.
        while let Some(backing) = self.pop_backing() {
            backing.clear();
        }

        for inode in self.inodes.lock().iter() {
            // SAFETY: By the type invariant of `Inode`, this is the mapping of an open file. The
            // `release()` operation of the file takes the lock that is held here to remove the
            // entry. So the inode is not freed during this call.
            //
            // A length of 0 means everything from offset 0 on.
            unsafe { bindings::unmap_mapping_range(inode.mapping.as_ptr(), 0, 0, 1) };
        }
    }

    fn pop_backing(&self) -> Option<ListArc<Backing>> {
        self.backings.lock().pop_front()
    }

    /// Lets [`Domain::revoke`] find the memory of an object.
    pub(super) fn add_backing(&self, _active: &Active<'_>, backing: ListArc<Backing>) {
        self.backings.lock().push_back(backing);
    }

    /// Undoes [`Domain::add_backing`], unless the domain has been revoked since.
    pub(super) fn remove_backing(&self, backing: &Backing) {
        // SAFETY: A `Backing` is only added to the list of its object's domain, which is this
        // domain. So it is in this list or in none.
        let removed = unsafe { self.backings.lock().remove(backing) };

        // Drop the list's reference without the lock, as this may drop folios.
        drop(removed);
    }

    /// Lets [`Domain::revoke`] find the VMAs of a file whose `f_mapping` is `mapping`.
    ///
    /// # Safety
    ///
    /// `mapping` must be the `f_mapping` of a file that is being opened. [`Domain::remove_file`]
    /// must be called when the file is released, or when opening it fails.
    pub(super) unsafe fn add_file(
        &self,
        _active: &Active<'_>,
        mapping: NonNull<bindings::address_space>,
    ) -> Result {
        let mut inodes = self.inodes.lock();

        if let Some(inode) = inodes.iter_mut().find(|inode| inode.mapping == mapping) {
            // INVARIANT: By the safety requirements, this is one more open file with that mapping.
            inode.files += 1;
            return Ok(());
        }
        // INVARIANT: By the safety requirements, this is the `f_mapping` of a file, the first with
        // it.
        inodes.push(Inode { mapping, files: 1 }, GFP_KERNEL_ACCOUNT)?;
        Ok(())
    }

    /// Undoes [`Domain::add_file`].
    pub(super) fn remove_file(&self, mapping: NonNull<bindings::address_space>) {
        let mut inodes = self.inodes.lock();

        if let Some(at) = inodes.iter().position(|inode| inode.mapping == mapping) {
            if let Some(inode) = inodes.get_mut(at) {
                inode.files -= 1;
                if inode.files > 0 {
                    return;
                }
            }
            // INVARIANT: This was the last open file with that mapping.
            let _ = inodes.remove(at);
        }
    }

    pub(super) fn nr_sources(&self) -> usize {
        self.entries.len()
    }

    /// Calls `f` with the counters of a source.
    pub(super) fn count(&self, source: usize, f: impl Fn(&Counters)) {
        if let Some(entry) = self.entries.get(source) {
            f(&entry.counters);
        }
    }

    /// Writes a line for each source, for debugfs.
    pub(super) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(active) = self.enter() else {
            return Ok(());
        };

        for (source, entry) in self.entries.iter().enumerate() {
            let usage = active.usage(source).unwrap_or_default();

            f.write_fmt(fmt!(
                "{} size {} used {} objects {} mappings {}\n",
                entry.name,
                usage.size,
                usage.used,
                usage.objects,
                usage.mappings
            ))?;
        }
        Ok(())
    }
}

/// Proof that a domain has not been revoked. [`Domain::revoke`] waits until it is dropped.
///
/// # Invariants
///
/// `domain.revoked` was seen clear in the SRCU read-side critical section of `_guard`.
pub(super) struct Active<'a> {
    domain: &'a Domain,
    _guard: srcu::Guard<'a>,
}

impl Active<'_> {
    /// Returns a source by its number, or `EINVAL` if there is no such source.
    pub(super) fn source(&self, source: usize) -> Result<&dyn Backend> {
        let entry = self.domain.entries.get(source).ok_or(EINVAL)?;

        // SAFETY: By the type invariant of `Entry`, the source is valid until `revoke()` has waited
        // for the readers of `srcu`. By that of `Active`, `self` is such a reader.
        Ok(unsafe { entry.source.assume_init_ref() }.backend())
    }

    /// Returns the usage of a source, or `EINVAL` if there is no such source.
    pub(super) fn usage(&self, source: usize) -> Result<Usage> {
        let backend = self.source(source)?;
        let counters = &self.domain.entries.get(source).ok_or(EINVAL)?.counters;

        Ok(Usage {
            size: backend.nr_pages() << PAGE_SHIFT,
            used: backend.nr_used() << PAGE_SHIFT,
            objects: counters.objects.load(Relaxed),
            mappings: counters.mappings.load(Relaxed),
        })
    }

    /// Returns the PCI function that has the memory of the first source.
    pub(super) fn endpoint(&self) -> Result<Endpoint<'_>> {
        let dev = self.source(0)?.pagemap().device();

        // SAFETY: devres releases the pagemap when the function or a child of it has been unbound.
        // The source is valid until `revoke()` has waited for the readers of `srcu`, of which
        // `self` is one. So the function stays bound for as long as `self` exists.
        Ok(unsafe { Endpoint::new(dev.try_into()?) })
    }

    /// Calls `f` with the registration data.
    ///
    /// `f` must accept any lifetime of the data and of the reference to them. So it can keep
    /// neither.
    ///
    /// # Safety
    ///
    /// A `Registration<T>`, with the same `T`, must have created the domain.
    pub(super) unsafe fn with_data<T: Operations, R>(
        &self,
        f: impl for<'d, 'a> FnOnce(&'d T::RegistrationData<'a>) -> R,
    ) -> R {
        // SAFETY: By the type invariant of `Domain`, `data` points to a value of this type, apart
        // from the lifetime. It is valid until `revoke()` has waited for the readers of `srcu`, of
        // which `self` is one. `f` cannot keep the reference.
        f(unsafe { self.domain.data.cast::<T::RegistrationData<'_>>().as_ref() })
    }
}
