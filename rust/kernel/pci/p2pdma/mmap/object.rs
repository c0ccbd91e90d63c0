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
    mem, //
};

/// A folio of an object, and its place in the object.
pub(super) struct Extent {
    /// The index, in pages, at which the folio starts in the object.
    pub(super) start: usize,
    pub(super) folio: ARef<DeviceFolio>,
}

/// The memory of an object, until the domain is revoked.
#[pin_data]
pub(super) struct Backing {
    /// Sorted by `start`, without gaps. Pages are mapped with this lock held.
    #[pin]
    extents: Mutex<KVVec<Extent>>,
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
    pub(super) fn new(extents: KVVec<Extent>) -> impl PinInit<Self, Error> {
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
        for extent in &*extents {
            if !go_on() || mapping.insert_folio(extent.start, &extent.folio).is_err() {
                break;
            }
        }
    }

    /// Maps the page with the index `page` of the object at the address of a fault.
    fn fault(&self, page: usize, fault: &VmFault) -> FaultResult {
        let extents = self.extents.lock();

        match find(&extents, page) {
            // The lock is held until the page is mapped: so `Domain::revoke`, which takes it in
            // `clear()`, unmaps the page afterwards.
            Some((folio, index)) => fault.insert_page(folio, index),
            None => FaultResult::SigBus,
        }
    }
}

/// Returns the folio that has the page with the index `page` of an object, and the index of the
/// page in the folio.
fn find(extents: &[Extent], page: usize) -> Option<(&DeviceFolio, usize)> {
    let after = extents.partition_point(|extent| extent.start <= page);
    let extent = extents.get(after.checked_sub(1)?)?;

    // OVERFLOW: The extent does not start after the page.
    let index = page - extent.start;
    (index < extent.folio.nr_pages()).then_some((&*extent.folio, index))
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
    ) -> Result<Arc<Self>> {
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
        // If this fails, it drops the object, which undoes the above.
        Ok(Arc::new(object, GFP_KERNEL_ACCOUNT)?)
    }

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

/// The private data of the VMA of one call of `mmap()`, and of all VMAs that were split off or
/// copied from it.
pub(super) struct Mapping<T> {
    object: Arc<Object>,
    _node: PhantomData<fn() -> T>,
}

impl<T> Mapping<T> {
    fn new(object: Arc<Object>) -> Self {
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

            context
                .alloc_object(&active, 0, nr_pages, &|| Ok(0))
                .map_err(|e| {
                    // `p2pmem/allocate` fails with this error, too.
                    if e == ENOSPC {
                        ENOMEM
                    } else {
                        e
                    }
                })?
        } else {
            // The object may have been freed since `mmap_prepare()` looked it up.
            context.object(pgoff, nr_pages)?
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
