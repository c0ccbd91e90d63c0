// SPDX-License-Identifier: GPL-2.0

//! Open files.

use super::{
    cleaner::User,
    domain::{
        Active,
        Counters,
        Domain, //
    },
    object::{
        Backing,
        Extents,
        Mapping,
        Object, //
    },
    registration::Node,
    source::{
        min_folios,
        Usage, //
    },
    Operations, //
};
use crate::{
    bindings,
    list::ListArc,
    maple_tree::MapleTree,
    memremap::MAX_ORDER,
    miscdevice::MiscFile,
    mm::virt::VmaDesc,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sizes::SZ_2M,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        ArcBorrow, //
    }, //
};
use core::ptr::NonNull;

/// Objects start at offsets, in pages, that are multiples of this. It is also the offset of the
/// first object. The kernel can choose addresses for such offsets at which large pages could be
/// mapped.
const OFFSET_ALIGN: usize = if PAGE_SIZE < SZ_2M {
    SZ_2M / PAGE_SIZE
} else {
    1
};

/// The end of all offsets, in pages: `mmap()` takes the offset as a signed number of bytes.
const OFFSET_END: usize = isize::MAX as usize >> PAGE_SHIFT;

/// How many bytes are allocated for an open file, and how many may be.
struct Account {
    limit: Atomic<usize>,
    used: Atomic<usize>,
    counters: Counters,
}

impl Account {
    fn charge(&self, size: usize) -> Result {
        let mut used = self.used.load(Relaxed);

        loop {
            let sum = used.checked_add(size).ok_or(EDQUOT)?;

            if sum > self.limit.load(Relaxed) {
                return Err(EDQUOT);
            }
            match self.used.cmpxchg(used, sum, Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => used = now,
            }
        }
    }
}

/// Charges memory to an account. The object owns it, so the memory is charged until neither the
/// file nor a VMA refers to the object. Memory that is only under DMA is not charged, nor is memory
/// that has not been returned to the allocator yet.
pub(super) struct Charge {
    account: Arc<Account>,
    nr_pages: usize,
}

impl Charge {
    fn new(account: &Arc<Account>, nr_pages: usize) -> Result<Self> {
        // OVERFLOW: The caller has checked that the source has at least this number of pages.
        account.charge(nr_pages << PAGE_SHIFT)?;
        Ok(Self {
            account: account.clone(),
            nr_pages,
        })
    }

    #[inline]
    pub(super) fn nr_pages(&self) -> usize {
        self.nr_pages
    }

    #[inline]
    pub(super) fn counters(&self) -> &Counters {
        &self.account.counters
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account
            .used
            .fetch_sub(self.nr_pages << PAGE_SHIFT, Relaxed);
    }
}

/// An open file.
///
/// # Invariants
///
/// The file has been added to `domain` under the key `mapping`. Only [`Context::release`] removes
/// it.
#[pin_data]
pub(super) struct Context {
    domain: Arc<Domain>,
    account: Arc<Account>,
    mapping: NonNull<bindings::address_space>,
    /// The offset of the next object, in pages. No offset is used twice: an old offset cannot refer
    /// to a new object.
    next: Atomic<usize>,
    /// The objects that can be mapped, by their offsets in pages.
    #[pin]
    objects: MapleTree<Arc<Object>>,
    // Dropped after the objects.
    user: User,
}

// SAFETY: `mapping` is only compared, never dereferenced. All other fields are `Send`.
unsafe impl Send for Context {}

// SAFETY: `mapping` is only compared, never dereferenced. All other fields are `Sync`.
unsafe impl Sync for Context {}

impl Context {
    /// Creates the context of a file that is being opened, with a limit in bytes.
    ///
    /// # Safety
    ///
    /// `mapping` must be the `f_mapping` of the file. If this succeeds, [`Context::release`] must
    /// be called by the `release()` operation of the file.
    pub(super) unsafe fn new(
        domain: &Arc<Domain>,
        active: &Active<'_>,
        mapping: NonNull<bindings::address_space>,
        limit: usize,
    ) -> Result<Arc<Self>> {
        let account = Arc::new(
            Account {
                limit: Atomic::new(limit),
                used: Atomic::new(0),
                counters: Counters::new(),
            },
            GFP_KERNEL_ACCOUNT,
        )?;

        let user = User::new(domain, active)?;

        // SAFETY: By the safety requirements, this is the `f_mapping` of a file that is being
        // opened, and `Context::release`, which calls `remove_file()`, is called when the file is
        // released. If creating the context fails, it is removed below.
        unsafe { domain.add_file(active, mapping) }?;
        // INVARIANT: `add_file()` has just added the file.
        Arc::pin_init(
            pin_init!(Self {
                domain: domain.clone(),
                account,
                mapping,
                next: Atomic::new(OFFSET_ALIGN),
                objects <- MapleTree::new(),
                user,
            }),
            GFP_KERNEL_ACCOUNT,
        )
        .inspect_err(|_| domain.remove_file(mapping))
    }

    /// Removes the file from the domain.
    pub(super) fn release(&self) {
        self.domain.remove_file(self.mapping);
    }

    pub(super) fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Returns the limit of the file, and what is allocated for it.
    pub(super) fn usage(&self) -> Usage {
        Usage {
            size: self.account.limit.load(Relaxed),
            used: self.account.used.load(Relaxed),
            objects: self.account.counters.objects.load(Relaxed),
            mappings: self.account.counters.mappings.load(Relaxed),
        }
    }

    /// Lowers the limit, or fails with `EPERM` if `limit` is higher than the present one.
    pub(super) fn lower_limit(&self, limit: usize) -> Result {
        let mut old = self.account.limit.load(Relaxed);

        loop {
            if limit > old {
                return Err(EPERM);
            }
            match self.account.limit.cmpxchg(old, limit, Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => old = now,
            }
        }
    }

    pub(super) fn show_fdinfo(&self, m: &SeqFile) {
        let usage = self.usage();

        seq_print!(m, "p2pdma-limit:\t{}\n", usage.size);
        seq_print!(m, "p2pdma-allocated:\t{}\n", usage.used);
        seq_print!(m, "p2pdma-objects:\t{}\n", usage.objects);
        seq_print!(m, "p2pdma-mappings:\t{}\n", usage.mappings);
    }

    /// Allocates an object. `pgoff` returns the offset, in pages, at which the object is mapped. It
    /// is called after the device memory has been allocated, so that a lack of memory does not use
    /// up offsets.
    ///
    /// Fails with `ENOSPC` if the source does not have that much free memory.
    ///
    /// This is not generic, and so compiled into the kernel only: a copy in a module would give the
    /// lock of [`Backing`] another name, with the same lockdep key.
    pub(super) fn alloc_object(
        &self,
        active: &Active<'_>,
        source: usize,
        nr_pages: usize,
        pgoff: &dyn Fn() -> Result<usize>,
    ) -> Result<Object> {
        let backend = active.source(source)?;

        // Fail early: allocating clears memory, which would be in vain. For less than the largest
        // folio, this check takes about as long as trying.
        if nr_pages >= 1 << MAX_ORDER && !backend.has_free(nr_pages) {
            return Err(ENOSPC);
        }
        let charge = Charge::new(&self.account, nr_pages)?;
        // User space chooses the size, so do not warn if it is too large.
        let flags = GFP_KERNEL_ACCOUNT | __GFP_NOWARN;
        let mut extents = Extents::with_capacity(min_folios(nr_pages), flags)?;
        let parts = self.user.parts(source)?;

        backend.alloc(nr_pages, self.user.id(), |folio| {
            parts.add(&folio);
            extents.push(folio, flags)?;
            // Clearing much memory takes long. Stop if the task is being killed, or if the device
            // is being unbound, which waits for this.
            if current!().fatal_signal_pending() {
                return Err(EINTR);
            }
            if self.domain.is_revoked() {
                return Err(ENODEV);
            }
            Ok(())
        })?;

        let pgoff = pgoff()?;
        let backing = ListArc::pin_init(Backing::new(extents), GFP_KERNEL_ACCOUNT)?;
        let object_backing = backing.clone_arc();

        self.domain.add_backing(active, backing);
        Ok(Object::new(
            self.domain.clone(),
            source,
            pgoff,
            object_backing,
            charge,
        ))
    }

    /// Allocates an object of `size` bytes, and returns the offset, in bytes, at which to map it.
    pub(super) fn alloc(&self, active: &Active<'_>, source: usize, size: usize) -> Result<u64> {
        if size == 0 || !size.is_multiple_of(PAGE_SIZE) {
            return Err(EINVAL);
        }
        let nr_pages = size >> PAGE_SHIFT;
        if nr_pages > active.source(source)?.nr_pages() {
            return Err(ENOSPC);
        }
        let object = self.alloc_object(active, source, nr_pages, &|| self.take_offset(nr_pages))?;
        let pgoff = object.pgoff;
        let object = Arc::new(object, GFP_KERNEL_ACCOUNT)?;

        self.objects
            .insert_range(pgoff..pgoff + nr_pages, object, GFP_KERNEL_ACCOUNT)
            .map_err(|e| Error::from(e.cause))?;
        // CAST: A `usize` is at most 64 bits wide.
        Ok((pgoff << PAGE_SHIFT) as u64)
    }

    /// Returns an offset, in pages, for an object of `nr_pages` pages.
    fn take_offset(&self, nr_pages: usize) -> Result<usize> {
        // OVERFLOW: The source has at least this number of pages, so it is far below `usize::MAX`.
        let room = nr_pages.next_multiple_of(OFFSET_ALIGN);
        let mut pgoff = self.next.load(Relaxed);

        loop {
            // OVERFLOW: `next` does not become larger than `OFFSET_END`.
            if room > OFFSET_END - pgoff {
                return Err(ENOSPC);
            }
            match self.next.cmpxchg(pgoff, pgoff + room, Relaxed) {
                Ok(_) => return Ok(pgoff),
                Err(now) => pgoff = now,
            }
        }
    }

    /// Frees the object that is mapped at `offset`, in bytes, or fails with `ENOENT`.
    pub(super) fn free(&self, offset: u64) -> Result {
        let offset = usize::try_from(offset).map_err(|_| ENOENT)?;
        let pgoff = offset >> PAGE_SHIFT;

        if !offset.is_multiple_of(PAGE_SIZE) || self.with_object(pgoff, |_| ()).is_none() {
            return Err(ENOENT);
        }
        // Another thread may have freed the object since. No other object has taken its offset.
        let object = self.objects.erase(pgoff).ok_or(ENOENT)?;

        drop(object);
        Ok(())
    }

    /// Calls `f` with the object that starts at `pgoff`, if there is one. `f` runs with a spinlock
    /// held, so it must neither sleep nor drop a reference to an object.
    fn with_object<R>(
        &self,
        pgoff: usize,
        f: impl FnOnce(ArcBorrow<'_, Object>) -> R,
    ) -> Option<R> {
        let mut objects = self.objects.lock();
        let object = objects.load(pgoff)?;

        (object.pgoff == pgoff).then(|| f(object))
    }

    /// Returns the object that starts at `pgoff` and has `nr_pages` pages, or `EINVAL` if there is
    /// none.
    pub(super) fn object(&self, pgoff: usize, nr_pages: usize) -> Result<Arc<Object>> {
        self.with_object(pgoff, |object| {
            (object.nr_pages() == nr_pages).then(|| object.into())
        })
        .flatten()
        .ok_or(EINVAL)
    }

    /// Prepares a mapping of the file.
    ///
    /// Fails with `EINVAL` if the mapping is private, or if its offset is neither 0 nor that of an
    /// object of the same size; with `ENOMEM` if the mapping is at offset 0 and larger than the
    /// source; with `ENODEV` if the domain has been revoked.
    pub(super) fn mmap_prepare<T: Operations>(&self, desc: &VmaDesc<MiscFile<Node<T>>>) -> Result {
        let nr_pages = desc.size() >> PAGE_SHIFT;
        let source = match desc.pgoff() {
            0 => 0,
            pgoff => self
                .with_object(pgoff, |object| {
                    (object.nr_pages() == nr_pages).then_some(object.source)
                })
                .flatten()
                .ok_or(EINVAL)?,
        };
        let active = self.domain.enter()?;
        let backend = active.source(source)?;

        desc.set_p2pdma_ops::<Mapping<T>>(backend.pagemap())?;
        if nr_pages > backend.nr_pages() {
            return Err(ENOMEM);
        }
        Ok(())
    }
}
