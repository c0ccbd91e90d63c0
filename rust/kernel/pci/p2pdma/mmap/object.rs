// SPDX-License-Identifier: GPL-2.0

//! Objects, and what maps them.

use super::{
    context::{
        Charge,
        Context, //
    },
    domain::{
        Counters,
        Domain, //
    },
    registration::Node,
    Operations, //
};
use crate::{
    alloc::Flags,
    list::{
        impl_list_arc_safe,
        impl_list_item,
        ListLinks, //
    },
    memremap::DeviceFolio,
    miscdevice::MiscFile,
    mm::virt::{
        FaultResult,
        NewMapping,
        VmFault,
        VmOps, //
    },
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::Relaxed,
        Arc,
        ArcBorrow,
        Mutex, //
    }, //
};
use core::{
    marker::PhantomData,
    mem,
    ops::Deref, //
};

/// A folio of an object, and its place in the object.
struct Extent {
    /// The index, in pages, at which the folio starts in the object.
    start: usize,
    folio: ARef<DeviceFolio>,
}

/// The folios of an object, without gaps. Most objects have only one, which needs no memory of its
/// own here.
#[derive(Default)]
pub(super) struct Extents {
    first: Option<Extent>,
    /// Sorted by `start`.
    more: KVVec<Extent>,
}

impl Extents {
    /// Creates an empty list with room for `nr_folios` folios.
    pub(super) fn with_capacity(nr_folios: usize, flags: Flags) -> Result<Self> {
        Ok(Self {
            first: None,
            more: KVVec::with_capacity(nr_folios.saturating_sub(1), flags)?,
        })
    }

    /// Appends a folio.
    pub(super) fn push(&mut self, folio: ARef<DeviceFolio>, flags: Flags) -> Result {
        match self.more.last().or(self.first.as_ref()) {
            Some(last) => {
                let start = last.start + last.folio.nr_pages();

                self.more.push(Extent { start, folio }, flags)?;
            }
            None => self.first = Some(Extent { start: 0, folio }),
        }
        Ok(())
    }

    fn iter(&self) -> impl Iterator<Item = &Extent> {
        [self.first.as_slice(), &self.more].into_iter().flatten()
    }

    /// Returns the folio that has the page with the index `page` of the object, and the index of
    /// the page in the folio.
    fn find(&self, page: usize) -> Option<(&DeviceFolio, usize)> {
        let after = self.more.partition_point(|extent| extent.start <= page);
        let extent = match after.checked_sub(1) {
            Some(at) => self.more.get(at)?,
            None => self.first.as_ref()?,
        };

        // OVERFLOW: The extent does not start after the page.
        let index = page - extent.start;
        (index < extent.folio.nr_pages()).then_some((&*extent.folio, index))
    }
}

/// The memory of an object, until the domain is revoked.
#[pin_data]
pub(super) struct Backing {
    /// Pages are mapped with this lock held.
    #[pin]
    extents: Mutex<Extents>,
    #[pin]
    links: ListLinks,
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for Backing { untracked; }
}
impl_list_item! {
    impl ListItem<0> for Backing { using ListLinks { self.links }; }
}

impl Backing {
    pub(super) fn new(extents: Extents) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            extents <- new_mutex!(extents),
            links <- ListLinks::new(),
        })
    }

    /// Drops the references to the folios. When this returns, neither faults nor `mmap()` map pages
    /// any more.
    pub(super) fn clear(&self) {
        let extents = mem::take(&mut *self.extents.lock());

        drop(extents);
    }

    /// Maps the folios in a new mapping of the object, for as long as `go_on` returns true. Faults
    /// map what this does not.
    fn map(&self, mapping: &NewMapping, go_on: impl Fn() -> bool) {
        let extents = self.extents.lock();

        // The lock is held until the pages are mapped: so `Domain::revoke`, which takes it in
        // `clear()`, unmaps them afterwards.
        for extent in extents.iter() {
            if !go_on() || mapping.insert_folio(extent.start, &extent.folio).is_err() {
                break;
            }
        }
    }

    /// Maps the page with the index `page` of the object at the address of a fault.
    fn fault(&self, page: usize, fault: &VmFault) -> FaultResult {
        let extents = self.extents.lock();

        match extents.find(page) {
            // The lock is held until the page is mapped: so `Domain::revoke`, which takes it in
            // `clear()`, unmaps the page afterwards.
            Some((folio, index)) => fault.insert_page(folio, index),
            None => FaultResult::SigBus,
        }
    }
}

/// An allocation: the memory of one ioctl, or of one mapping at offset 0.
pub(super) struct Object {
    domain: Arc<Domain>,
    /// The number of the source.
    pub(super) source: usize,
    /// The offset in the file, in pages, at which the object is mapped.
    pub(super) pgoff: usize,
    backing: Arc<Backing>,
    charge: Charge,
}

impl Object {
    /// Creates an object. `backing` must have been added to `domain`; dropping the object removes
    /// it.
    pub(super) fn new(
        domain: Arc<Domain>,
        source: usize,
        pgoff: usize,
        backing: Arc<Backing>,
        charge: Charge,
    ) -> Self {
        let object = Self {
            domain,
            source,
            pgoff,
            backing,
            charge,
        };

        object.count(|counters| {
            counters.objects.fetch_add(1, Relaxed);
        });
        object
    }

    #[inline]
    pub(super) fn nr_pages(&self) -> usize {
        self.charge.nr_pages()
    }

    /// Maps the memory when `mmap()` is called, to save faults.
    fn map(&self, mapping: &NewMapping) {
        // There may be many folios. Stop if the task is being killed, or if the device is being
        // unbound, which waits for this.
        self.backing.map(mapping, || {
            !current!().fatal_signal_pending() && !self.domain.is_revoked()
        });
    }

    #[inline]
    fn count(&self, f: impl Fn(&Counters)) {
        f(self.charge.counters());
        self.domain.count(self.source, f);
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.domain.remove_backing(&self.backing);
        self.count(|counters| {
            counters.objects.fetch_sub(1, Relaxed);
        });
    }
}

/// The object of a mapping.
enum Mapped {
    /// The mapping is at offset 0, and no other mapping has this object.
    Own(Object),
    Shared(Arc<Object>),
}

impl Deref for Mapped {
    type Target = Object;

    #[inline]
    fn deref(&self) -> &Object {
        match self {
            Self::Own(object) => object,
            Self::Shared(object) => object,
        }
    }
}

/// The private data of the VMA of one call of `mmap()`, and of all VMAs that were split off or
/// copied from it.
pub(super) struct Mapping<T> {
    object: Mapped,
    _node: PhantomData<fn() -> T>,
}

impl<T> Mapping<T> {
    fn new(object: Mapped) -> Self {
        object.count(|counters| {
            counters.mappings.fetch_add(1, Relaxed);
        });
        Self {
            object,
            _node: PhantomData,
        }
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        self.object.count(|counters| {
            counters.mappings.fetch_sub(1, Relaxed);
        });
    }
}

impl<T: Operations> VmOps for Mapping<T> {
    type File = MiscFile<Node<T>>;

    fn mapped(context: ArcBorrow<'_, Context>, mapping: &NewMapping) -> Result<Arc<Self>> {
        let (pgoff, nr_pages) = (mapping.pgoff(), mapping.nr_pages());
        let object = if pgoff == 0 {
            let active = context.domain().enter()?;

            let object = context
                .alloc_object(&active, 0, nr_pages, &|| Ok(0))
                .map_err(|e| {
                    // `p2pmem/allocate` fails with this error, too.
                    if e == ENOSPC {
                        ENOMEM
                    } else {
                        e
                    }
                })?;
            Mapped::Own(object)
        } else {
            // The object may have been freed since `mmap_prepare()` looked it up.
            Mapped::Shared(context.object(pgoff, nr_pages)?)
        };

        let this = Arc::new(Self::new(object), GFP_KERNEL_ACCOUNT)?;

        this.object.map(mapping);
        Ok(this)
    }

    fn fault(this: ArcBorrow<'_, Self>, fault: &VmFault) -> FaultResult {
        let object = &this.object;

        match fault.pgoff().checked_sub(object.pgoff) {
            Some(page) => object.backing.fault(page, fault),
            None => FaultResult::SigBus,
        }
    }
}
