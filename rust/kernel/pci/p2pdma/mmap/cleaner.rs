// SPDX-License-Identifier: GPL-2.0

//! Clearing of memory whose users have closed their files.

use super::{
    domain::{
        Active,
        Domain, //
    },
    source::Backend, //
};
use crate::{
    bitmap::BitmapVec,
    list::{
        impl_list_arc_safe,
        impl_list_item,
        List,
        ListArc,
        ListLinks, //
    },
    memremap::{
        DeviceFolio,
        UserId,
        MAX_ORDER, //
    },
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    workqueue::{
        self,
        WorkItem, //
    }, //
};

/// The parts of a source, of `1 << MAX_ORDER` pages each, of which a user has allocated memory.
pub(super) struct Parts {
    /// The index of the first part, counted from physical address 0.
    first: usize,
    bits: BitmapVec,
}

impl Parts {
    fn new(backend: &dyn Backend) -> Result<Self> {
        let nr_parts = backend.nr_pages().div_ceil(1 << MAX_ORDER);

        Ok(Self {
            first: backend.pagemap().first_pfn() >> MAX_ORDER,
            bits: BitmapVec::new(nr_parts, GFP_KERNEL_ACCOUNT | __GFP_NOWARN)?,
        })
    }

    /// Notes that the user has got a folio of the source.
    #[inline]
    pub(super) fn add(&self, folio: &DeviceFolio) {
        self.bits
            .set_bit_atomic((folio.pfn() >> MAX_ORDER) - self.first);
    }
}

/// The parts of each source of which a user has allocated pages, and which the worker has not
/// visited yet.
#[pin_data]
pub(super) struct Footprint {
    id: UserId,
    /// An element for each source.
    sources: KVec<Parts>,
    #[pin]
    links: ListLinks,
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for Footprint { untracked; }
}
impl_list_item! {
    impl ListItem<0> for Footprint { using ListLinks { self.links }; }
}

impl Footprint {
    /// Returns the first part: the index of its source, and its own.
    fn first(&self) -> Option<(usize, usize)> {
        let mut sources = self.sources.iter().enumerate();

        sources.find_map(|(i, parts)| parts.bits.next_bit(0).map(|part| (i, part)))
    }

    fn remove(&self, source: usize, part: usize) {
        if let Some(parts) = self.sources.get(source) {
            parts.bits.clear_bit_atomic(part);
        }
    }
}

/// A user of a domain: an open file.
///
/// When it is dropped, a worker clears what the user has left.
pub(super) struct User {
    domain: Arc<Domain>,
    id: UserId,
    /// [`None`] only while the user is being dropped.
    footprint: Option<ListArc<Footprint>>,
}

impl User {
    pub(super) fn new(domain: &Arc<Domain>, active: &Active<'_>) -> Result<Self> {
        let id = UserId::unique();
        let mut sources = KVec::with_capacity(domain.nr_sources(), GFP_KERNEL_ACCOUNT)?;

        for source in 0..domain.nr_sources() {
            sources.push(Parts::new(active.source(source)?)?, GFP_KERNEL_ACCOUNT)?;
        }
        let footprint = ListArc::pin_init(
            try_pin_init!(Footprint {
                id,
                sources,
                links <- ListLinks::new(),
            }? Error),
            GFP_KERNEL_ACCOUNT,
        )?;

        Ok(Self {
            domain: domain.clone(),
            id,
            footprint: Some(footprint),
        })
    }

    #[inline]
    pub(super) fn id(&self) -> UserId {
        self.id
    }

    /// Returns what is known of a source, or `EINVAL` if there is no such source.
    pub(super) fn parts(&self, source: usize) -> Result<&Parts> {
        let footprint = self.footprint.as_ref().ok_or(EINVAL)?;

        footprint.sources.get(source).ok_or(EINVAL)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let Some(footprint) = self.footprint.take() else {
            return;
        };

        if footprint.first().is_some() {
            self.domain.gone.lock().push_back(footprint);
            // If this fails, the work has been queued already.
            let _ = workqueue::system_freezable().enqueue(self.domain.clone());
        }
    }
}

/// The users of a domain who are gone, and may have left memory to clear.
pub(super) type Gone = Mutex<List<Footprint>>;

/// Each run clears one part of one source for one user.
impl WorkItem for Domain {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let Some(footprint) = this.pop_gone() else {
            return;
        };
        let Some((source, part)) = footprint.first() else {
            return;
        };
        // If the domain has been revoked, the memory does not belong to the domain any more.
        let Ok(active) = this.enter() else {
            return;
        };

        let accepted = active.source(source).is_ok_and(|backend| {
            let first = part << MAX_ORDER;
            let end = (first + (1 << MAX_ORDER)).min(backend.nr_pages());

            // SAFETY: The user allocates through the `User` only, which has been dropped.
            unsafe { backend.clean(first..end, footprint.id, &|| this.is_revoked()) }
        });
        drop(active);

        // If the allocator does not allow accesses to free memory, or if the device does not accept
        // the writes, forget all parts of the source: they are cleared when they are allocated.
        while let Some((_, next)) = footprint.first().filter(|(i, _)| *i == source) {
            if !accepted || next == part {
                footprint.remove(source, next);
            } else {
                break;
            }
        }
        if footprint.first().is_some() {
            this.gone.lock().push_front(footprint);
        }
        let _ = workqueue::system_freezable().enqueue(this);
    }
}

impl Domain {
    fn pop_gone(&self) -> Option<ListArc<Footprint>> {
        self.gone.lock().pop_front()
    }
}
