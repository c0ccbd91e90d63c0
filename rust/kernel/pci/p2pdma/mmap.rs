// SPDX-License-Identifier: GPL-2.0

//! Mapping peer-to-peer DMA memory into user space.
//!
//! A driver lets user space map its memory with a [`Domain`] for the device and a [`Context`] for
//! each open file. Where the memory comes from is a matter of its [`Source`]s: a [`Pagemap`] whose
//! pages the driver allocates by itself, or the [`Pool`] of the device.
//!
//! There are two ways to map it:
//!
//! - What a program gets when it maps a file at offset 0 is what it gets from `p2pmem/allocate` in
//!   sysfs: fresh memory of the first source, for as long as it is mapped or under DMA.
//! - [`Context::alloc`] makes an object, and returns the offset to map it at. It exists until
//!   [`Context::free`] or the file is closed; the memory stays until it is not mapped or under DMA
//!   any more.
//!
//! Memory is cleared when it is allocated, unless it was the same open file that used it last, so
//! that nobody gets to see what was left there. There are limits to that: other users of a [`Pool`]
//! do not clear what they allocate from it, and a peer whose DMA has completed may in theory have
//! writes on their way yet, which arrive after the zeros.
//!
//! When the device is unbound, all of it is taken back: accesses to the mappings get `SIGBUS` from
//! then on. Nobody can hold up that by keeping a file or a mapping; only DMA that is under way is
//! waited for.
//!
//! # Locking
//!
//! - `mmap_lock` -> `Domain::srcu` (read side) -> `Domain::state` -> `Slot::pieces` -> page table
//!   lock
//! - `mmap_lock` -> `Context::keys` -> `Domain::state`
//! - `misc_mtx` -> `Domain::state`
//!
//! Memory is allocated under all but the page table lock. User memory is accessed under none of
//! them, and the lock of the device, which is held when [`Domain::revoke`] waits for readers of
//! `srcu`, must not be taken. The latter holds none of these locks when it unmaps pages, for which
//! it takes `i_mmap_rwsem`. [`PagemapOps::folio_free`] takes none either.
//!
//! # Examples
//!
//! What it takes to map memory of a device's pool by way of a misc device:
//!
//! ```
//! use kernel::{
//!     device::{
//!         Bound,
//!         Core,
//!         Device, //
//!     },
//!     fs::File,
//!     miscdevice::{
//!         MiscDevice,
//!         MiscDeviceOptions,
//!         MiscDeviceRegistration,
//!         MiscFile, //
//!     },
//!     mm::virt::VmaDesc,
//!     pci::{
//!         self,
//!         p2pdma::mmap::{
//!             Context,
//!             Domain,
//!             MapDevice,
//!             Source, //
//!         }, //
//!     },
//!     prelude::*,
//!     sync::{
//!         Arc,
//!         ArcBorrow, //
//!     }, //
//! };
//!
//! /// The device node.
//! struct ExampleNode;
//!
//! #[vtable]
//! impl MiscDevice for ExampleNode {
//!     type Ptr = Arc<Context>;
//!     type RegistrationData = Arc<Domain>;
//!
//!     fn open(file: &File, misc: &MiscDeviceRegistration<Self>) -> Result<Arc<Context>> {
//!         Context::open(misc.data(), misc, file, usize::MAX)
//!     }
//!
//!     fn mmap_prepare(
//!         context: ArcBorrow<'_, Context>,
//!         _file: &File,
//!         desc: &VmaDesc<MiscFile<Self>>,
//!     ) -> Result {
//!         context.mmap_prepare(desc)
//!     }
//! }
//!
//! impl MapDevice for ExampleNode {
//!     fn context(context: ArcBorrow<'_, Context>) -> Arc<Context> {
//!         context.into()
//!     }
//! }
//!
//! /// What the driver keeps of a device, for its `unbind()` to revoke the domain.
//! #[pin_data]
//! struct ExampleData {
//!     #[pin]
//!     misc: MiscDeviceRegistration<ExampleNode>,
//!     domain: Arc<Domain>,
//! }
//!
//! fn add(pdev: &pci::Device<Core<'_>>) -> Result<Arc<Domain>> {
//!     pdev.enable_device_mem()?;
//!     let pool = pdev.p2pdma_add_resource(4, 0..pdev.resource_len(4)?)?;
//!
//!     Domain::new(pdev, &[Source::from(pool)])
//! }
//!
//! fn register(
//!     parent: &Device<Bound>,
//!     domain: Arc<Domain>,
//! ) -> impl PinInit<ExampleData, Error> + '_ {
//!     try_pin_init!(ExampleData {
//!         misc <- MiscDeviceRegistration::register(
//!             MiscDeviceOptions::new(c"example").parent(parent),
//!             Ok::<_, Error>(domain.clone()),
//!         ),
//!         domain,
//!     })
//! }
//! ```
//!
//! A driver that has an allocator of its own brings it as a [`PageAllocator`], and lets user space
//! allocate objects:
//!
//! ```
//! use kernel::{
//!     device::{
//!         Bound,
//!         Core, //
//!     },
//!     memremap::{
//!         CacheMode,
//!         FreeFolio,
//!         Pagemap,
//!         PagemapOps, //
//!     },
//!     mm::block_map::{
//!         Block,
//!         BlockMap, //
//!     },
//!     page::PAGE_SIZE,
//!     pci::{
//!         self,
//!         p2pdma::{
//!             self,
//!             mmap::{
//!                 Context,
//!                 Domain,
//!                 PageAllocator,
//!                 Source, //
//!             },
//!             MapType, //
//!         }, //
//!     },
//!     prelude::*,
//!     seq_file::SeqFile,
//!     sync::Arc, //
//! };
//!
//! struct Pages(BlockMap);
//!
//! impl PagemapOps for Pages {
//!     fn folio_free(&self, folio: FreeFolio) {
//!         let block = folio.block();
//!
//!         drop(folio);
//!         self.free_block(block);
//!     }
//! }
//!
//! impl PageAllocator for Pages {
//!     fn alloc_block(&self, order: u32) -> Option<Block> {
//!         self.0.alloc_up_to(order)
//!     }
//!
//!     fn free_block(&self, block: Block) {
//!         let _ = self.0.free(block);
//!     }
//! }
//!
//! /// All of a prefetchable BAR is for user space.
//! fn add(pdev: &pci::Device<Core<'_>>, bar: u32) -> Result<Arc<Domain>> {
//!     let len = pdev.resource_len(bar)?;
//!     let pages = Pages(BlockMap::new(usize::try_from(len)? / PAGE_SIZE, GFP_KERNEL)?);
//!
//!     pdev.enable_device_mem()?;
//!     let pagemap: &Pagemap<Pages> =
//!         pdev.p2pdma_add_pagemap(bar, 0..len, CacheMode::WriteCombine, Ok::<_, Error>(pages))?;
//!
//!     Domain::new(pdev, &[Source::from(pagemap)])
//! }
//!
//! /// An ioctl: allocates an object, and returns the offset that user space has to map it at.
//! fn ioctl_alloc(context: &Context, nr_pages: usize) -> Result<u64> {
//!     context.alloc(0, nr_pages.checked_mul(PAGE_SIZE).ok_or(EINVAL)?)
//! }
//!
//! /// An ioctl: frees an object.
//! fn ioctl_free(context: &Context, offset: u64) -> Result {
//!     context.free(offset)
//! }
//!
//! /// An ioctl: whoever gets the file next shall not allocate more than there is now.
//! fn ioctl_seal(context: &Context) -> Result {
//!     context.lower_limit(context.usage().used)
//! }
//!
//! fn show_fdinfo(context: &Context, m: &SeqFile) {
//!     context.show_fdinfo(m);
//! }
//!
//! /// Whether another device can get at the memory, and there is any left.
//! fn usable(domain: &Domain, client: &pci::Device<Bound>) -> Result<bool> {
//!     let map_type =
//!         domain.with_endpoint(|provider| p2pdma::map_type(provider, client.into()))?;
//!     let usage = domain.usage(0)?;
//!
//!     Ok(map_type != MapType::NotSupported && usage.used < usage.size)
//! }
//!
//! /// What a driver's `unbind()` has to do.
//! fn unbind(domain: &Domain) {
//!     domain.revoke();
//! }
//! ```

use super::{
    Device,
    Endpoint,
    Pool, //
};
use crate::{
    device,
    devres,
    fs::{
        File,
        FileMapping, //
    },
    memremap::{
        Pagemap,
        PagemapOps,
        PagemapRef,
        UserId, //
    },
    miscdevice::{
        MiscDevice,
        MiscDeviceRegistration,
        MiscFile, //
    },
    mm::{
        block_map::Block,
        virt::{
            FaultResult,
            VmFault,
            VmOps,
            VmaDesc, //
        },
        Folio, //
    },
    new_mutex,
    new_srcu,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    rbtree::RBTree,
    seq_file::SeqFile,
    seq_print,
    sizes::SZ_2M,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        srcu,
        Arc,
        ArcBorrow,
        Mutex,
        Srcu, //
    },
    types::ForeignOwnable, //
};
use core::{
    marker::PhantomData,
    mem::{
        self,
        MaybeUninit, //
    },
    ops::Range,
    ptr, //
};

/// The largest order of the blocks that are asked for.
const MAX_ORDER: u32 = 0;

/// Objects start at offsets, in pages, that are multiples of this: at such offsets user space may
/// get addresses that large pages can be mapped at. It also is the first one.
const KEY_ALIGN: usize = if PAGE_SIZE < SZ_2M {
    SZ_2M / PAGE_SIZE
} else {
    1
};

/// The end of all offsets, in pages: what `mmap()` takes is a signed number of bytes.
const KEY_END: usize = isize::MAX as usize >> PAGE_SHIFT;

/// An allocator of the pages of a [`Pagemap`].
///
/// It is told about pages that come back by [`PagemapOps::folio_free`].
pub trait PageAllocator: PagemapOps {
    /// Takes a block, of `order` if possible, else of a smaller one.
    ///
    /// Nobody else gets it before it is free again.
    ///
    /// May sleep. But the task may hold the `mmap_lock` for writing, and unbinding the device may
    /// wait for it: so this must neither access user memory nor take the lock of the device.
    fn alloc_block(&self, order: u32) -> Option<Block>;

    /// Takes back a block that has not become a folio.
    fn free_block(&self, block: Block);
}

/// What a [`Pagemap`] and a [`Pool`] have in common.
trait Backend: Send + Sync {
    /// Allocates a folio of at most that order, which holds nothing but what `user` left there.
    fn alloc(&self, order: u32, user: UserId) -> Option<ARef<Folio>>;

    fn pagemap(&self) -> PagemapRef<'_>;
    fn device(&self) -> &device::Device;
    fn nr_pages(&self) -> usize;
    fn nr_used(&self) -> usize;
}

impl<A: PageAllocator> Backend for Pagemap<A> {
    fn alloc(&self, order: u32, user: UserId) -> Option<ARef<Folio>> {
        let block = self.data().alloc_block(order)?;

        self.hand_out_clean(block, user)
            .inspect_err(|_| self.data().free_block(block))
            .ok()
    }

    fn pagemap(&self) -> PagemapRef<'_> {
        self.as_pagemap_ref()
    }

    fn device(&self) -> &device::Device {
        Pagemap::device(self)
    }

    fn nr_pages(&self) -> usize {
        Pagemap::nr_pages(self)
    }

    fn nr_used(&self) -> usize {
        Pagemap::nr_used(self)
    }
}

impl Backend for Pool<'_> {
    fn alloc(&self, _order: u32, _user: UserId) -> Option<ARef<Folio>> {
        let folio = self.alloc_folio()?;

        // There are others who allocate from it.
        folio.clear();
        Some(folio)
    }

    fn pagemap(&self) -> PagemapRef<'_> {
        self.as_pagemap_ref()
    }

    fn device(&self) -> &device::Device {
        self.dev.as_ref()
    }

    fn nr_pages(&self) -> usize {
        self.nr_pages
    }

    fn nr_used(&self) -> usize {
        // Not known: `p2pmem/available` in sysfs tells.
        0
    }
}

/// Where the memory of a [`Domain`] comes from.
#[derive(Copy, Clone)]
pub struct Source<'a>(SourceKind<'a>);

#[derive(Copy, Clone)]
enum SourceKind<'a> {
    Pagemap(&'a dyn Backend),
    Pool(Pool<'a>),
}

impl<'a, A: PageAllocator> From<&'a Pagemap<A>> for Source<'a> {
    fn from(pagemap: &'a Pagemap<A>) -> Self {
        Self(SourceKind::Pagemap(pagemap))
    }
}

/// Only the memory that the pool was created with can be mapped. If more was added to it,
/// allocations fail for as long as pages of that are free.
impl<'a> From<Pool<'a>> for Source<'a> {
    fn from(pool: Pool<'a>) -> Self {
        Self(SourceKind::Pool(pool))
    }
}

impl Source<'_> {
    fn backend(&self) -> &dyn Backend {
        match &self.0 {
            SourceKind::Pagemap(pagemap) => *pagemap,
            SourceKind::Pool(pool) => pool,
        }
    }
}

/// Numbers about one [`Source`], or about all that a [`Context`] has got.
///
/// # Examples
///
/// ```
/// use kernel::pci::p2pdma::mmap::Usage;
///
/// /// Tells whether `size` bytes more are available, by what is known now.
/// fn fits(usage: Usage, size: usize) -> bool {
///     size <= usage.size.saturating_sub(usage.used)
/// }
///
/// assert!(!fits(Usage::default(), 1));
/// ```
#[derive(Copy, Clone, Default)]
pub struct Usage {
    /// The size in bytes: that of the source, or the limit of the context.
    pub size: usize,
    /// The number of bytes of it that are in use, for whatever; 0 for a [`Pool`], which does not
    /// tell.
    pub used: usize,
    /// The number of objects that exist, including those that have been freed but still are mapped,
    /// and those that were made by mapping a file at offset 0.
    pub objects: usize,
    /// The number of calls of `mmap()` of which something is left.
    pub mappings: usize,
}

struct Counters {
    objects: Atomic<usize>,
    mappings: Atomic<usize>,
}

impl Counters {
    fn new() -> Self {
        Self {
            objects: Atomic::new(0),
            mappings: Atomic::new(0),
        }
    }
}

/// A source, and what there is of it.
///
/// # Invariants
///
/// The source is initialised. It is valid until [`Domain::revoke`] has gone through its grace
/// period, and must not be used later. It may dangle then, hence the [`MaybeUninit`].
struct Entry {
    source: MaybeUninit<Source<'static>>,
    counters: Counters,
}

struct State {
    /// The last key of one of these.
    last: u64,
    /// In the order of the mappings, several files having the same.
    files: RBTree<(usize, u64), FileMapping>,
    slots: RBTree<u64, Arc<Slot>>,
}

impl State {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

/// The memory of a device, as far as it is for user space.
///
/// Open files hold references to it, and so it may outlive the device, but not the memory: see
/// [`Domain::revoke`].
#[pin_data]
pub struct Domain {
    entries: KVec<Entry>,
    revoked: Atomic<bool>,
    #[pin]
    srcu: Srcu,
    #[pin]
    state: Mutex<State>,
}

/// The proof that a domain has not been revoked, and cannot be until it is dropped.
///
/// # Invariants
///
/// `revoked` was seen clear in the SRCU read-side critical section of `_guard`, and so
/// [`Domain::revoke`] waits for `self`.
struct Entered<'a> {
    domain: &'a Domain,
    _guard: srcu::Guard<'a>,
}

impl Entered<'_> {
    fn source(&self, index: usize) -> Option<&dyn Backend> {
        let entry = self.domain.entries.get(index)?;

        // SAFETY: By the type invariant of `Entry` it is initialised, and valid until `revoke()`
        // has gone through its grace period. By that of `Entered`, it waits for us.
        Some(unsafe { entry.source.assume_init_ref() }.backend())
    }
}

/// Revokes when it is dropped.
struct Revoker(Arc<Domain>);

impl Drop for Revoker {
    fn drop(&mut self) {
        self.0.revoke();
    }
}

impl Domain {
    /// Creates a domain with memory of `dev`.
    ///
    /// Mapping a file at offset 0 takes the first source. The others are for objects.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there are no sources, or one of them is not of `dev`; `ENOMEM` if there is not
    /// enough memory.
    pub fn new<'a>(dev: &'a Device<device::Bound>, sources: &[Source<'a>]) -> Result<Arc<Self>> {
        let bound: &device::Device<device::Bound> = dev.as_ref();
        let mut entries = KVec::with_capacity(sources.len(), GFP_KERNEL)?;

        for &source in sources {
            if !ptr::eq::<device::Device>(source.backend().device(), &**bound) {
                return Err(EINVAL);
            }
            // SAFETY: Only the lifetime changes. The source is used by way of `Entered` only, which
            // the `Revoker` waits for before devres releases what it refers to.
            let source = unsafe { mem::transmute::<Source<'a>, Source<'static>>(source) };

            // INVARIANT: Both kinds of sources are released by devres when the device has been
            // unbound. So is the `Revoker` below, but before, as it is registered after them.
            entries.push(
                Entry {
                    source: MaybeUninit::new(source),
                    counters: Counters::new(),
                },
                GFP_KERNEL,
            )?;
        }
        if entries.is_empty() {
            return Err(EINVAL);
        }

        let domain = Arc::pin_init(
            try_pin_init!(Self {
                entries,
                revoked: Atomic::new(false),
                srcu <- new_srcu!(),
                state <- new_mutex!(State {
                    last: 0,
                    files: RBTree::new(),
                    slots: RBTree::new(),
                }),
            }),
            GFP_KERNEL,
        )?;

        // If this fails, the domain is revoked right here, and nobody has seen it.
        devres::register::<_, Error>(bound, Ok(Revoker(domain.clone())), GFP_KERNEL)?;
        Ok(domain)
    }

    fn enter(&self) -> Result<Entered<'_>> {
        let guard = self.srcu.read_lock();

        if self.revoked.load(Relaxed) {
            return Err(ENODEV);
        }
        // INVARIANT: We have just seen it clear in this critical section.
        Ok(Entered {
            domain: self,
            _guard: guard,
        })
    }

    /// Takes all memory back from user space.
    ///
    /// From then on, accesses to what is mapped get `SIGBUS`, and allocations and new mappings
    /// `ENODEV`. Devices may still be accessing the memory when this returns.
    ///
    /// This is done when the device has been unbound. Drivers call it before, in their `unbind()`,
    /// so that user space does not access a device that is being shut down. May sleep. If two
    /// threads call it at once, all this is true when both have returned. Neither what
    /// [`Self::with_endpoint`] calls nor a [`PageAllocator`] may call it.
    pub fn revoke(&self) {
        self.revoked.store(true, Relaxed);
        // Who has not seen that is done after this: nobody uses the sources any more, and there are
        // no slots but those in `state`.
        self.srcu.synchronize();

        let mut state = self.state.lock();

        for slot in state.slots.values() {
            // Faults that find the folio insert it before this; the page is unmapped below.
            drop(mem::take(&mut *slot.pieces.lock()));
        }
        // There are none to come, and there is nothing to do for these but once.
        let files = mem::replace(&mut state.files, RBTree::new());
        drop(state);

        let mut done = None;
        for ((mapping, _), file) in files.iter() {
            if done != Some(*mapping) {
                file.unmap_all();
                done = Some(*mapping);
            }
        }
    }

    /// Calls `f` with the PCI function that the memory is of, which stays bound meanwhile.
    ///
    /// Unbinding waits for `f`, so it must not take the lock of the device.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the domain has been revoked.
    pub fn with_endpoint<R>(&self, f: impl FnOnce(Endpoint<'_>) -> R) -> Result<R> {
        let entered = self.enter()?;
        let source = entered.source(0).ok_or(EINVAL)?;

        // INVARIANT: The sources are of a PCI function that was bound when `self` was created. It
        // is bound until devres has released what is registered, and the `Revoker`, which is, waits
        // for `entered` to be dropped.
        Ok(f(Endpoint(source.device())))
    }

    /// Returns the numbers of one of the sources.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the domain has been revoked, `EINVAL` if there is no such source.
    pub fn usage(&self, source: usize) -> Result<Usage> {
        let entered = self.enter()?;
        let backend = entered.source(source).ok_or(EINVAL)?;
        let counters = &self.entries.get(source).ok_or(EINVAL)?.counters;

        Ok(Usage {
            size: backend.nr_pages() << PAGE_SHIFT,
            used: backend.nr_used() << PAGE_SHIFT,
            objects: counters.objects.load(Relaxed),
            mappings: counters.mappings.load(Relaxed),
        })
    }
}

/// A folio of an object, and the page of the object that it starts at.
struct Piece {
    start: usize,
    folio: ARef<Folio>,
}

/// The memory of an object. There is none any more once it has been revoked.
#[pin_data]
struct Slot {
    #[pin]
    pieces: Mutex<KVVec<Piece>>,
}

impl Slot {
    fn new(pieces: KVVec<Piece>) -> impl PinInit<Self> {
        pin_init!(Self {
            pieces <- new_mutex!(pieces),
        })
    }

    /// Returns the folio that holds that page of the object, and which page of the folio it is.
    fn find(pieces: &[Piece], page: usize) -> Option<(&Folio, usize)> {
        let piece = match pieces.get(page) {
            // If all pieces before it are single pages, this is the one.
            Some(piece) if piece.start == page => piece,
            _ => {
                let after = pieces.partition_point(|piece| piece.start <= page);

                pieces.get(after.checked_sub(1)?)?
            }
        };

        // OVERFLOW: The piece does not start after the page.
        let index = page - piece.start;
        (index < piece.folio.nr_pages()).then_some((&*piece.folio, index))
    }
}

/// What is allocated for an open file, in bytes, and what may be.
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

    fn uncharge(&self, size: usize) {
        self.used.fetch_sub(size, Relaxed);
    }
}

/// Memory that is charged to an account until this is dropped. What only is under DMA any more, or
/// on its way back, is not.
struct Charge {
    account: Arc<Account>,
    nr_pages: usize,
}

impl Charge {
    fn new(account: &Arc<Account>, nr_pages: usize) -> Result<Self> {
        // OVERFLOW: There are so many pages.
        account.charge(nr_pages << PAGE_SHIFT)?;
        Ok(Self {
            account: account.clone(),
            nr_pages,
        })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.uncharge(self.nr_pages << PAGE_SHIFT);
    }
}

/// Memory that was allocated at once.
struct Object {
    domain: Arc<Domain>,
    /// Its key in the slots of the domain.
    id: u64,
    source: usize,
    /// The offset in the file, in pages, that it is mapped at.
    pgoff: usize,
    slot: Arc<Slot>,
    charge: Charge,
}

impl Object {
    fn count(&self, f: impl Fn(&Counters)) {
        f(&self.charge.account.counters);
        if let Some(entry) = self.domain.entries.get(self.source) {
            f(&entry.counters);
        }
    }

    fn nr_pages(&self) -> usize {
        self.charge.nr_pages
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let slot = self.domain.state.lock().slots.remove(&self.id);

        // Not under the lock.
        drop(slot);
        self.count(|counters| {
            counters.objects.fetch_sub(1, Relaxed);
        });
    }
}

struct Keys {
    /// The offset of the next object, in pages. None is used twice, so that an old one means
    /// nothing.
    next: usize,
    objects: RBTree<usize, Arc<Object>>,
}

/// What an open file has to do with a [`Domain`].
#[pin_data(PinnedDrop)]
pub struct Context {
    domain: Arc<Domain>,
    account: Arc<Account>,
    user: UserId,
    /// Its key in the files of the domain.
    id: (usize, u64),
    #[pin]
    keys: Mutex<Keys>,
}

impl Context {
    /// Creates the context of `file`, which is being opened by way of `misc`.
    ///
    /// `limit` is the number of bytes that may be allocated for it, `usize::MAX` for as many as
    /// there are.
    ///
    /// # Errors
    ///
    /// - `ENODEV` if the domain has been revoked.
    /// - `EINVAL` if the file is not one of the misc device.
    /// - `ENOMEM` if there is not enough memory.
    pub fn open<D: MapDevice>(
        domain: &Arc<Domain>,
        misc: &MiscDeviceRegistration<D>,
        file: &File,
        limit: usize,
    ) -> Result<Arc<Self>> {
        let mapping = misc.file_mapping(file)?;
        let account = Arc::new(
            Account {
                limit: Atomic::new(limit),
                used: Atomic::new(0),
                counters: Counters::new(),
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        let id = {
            let mut state = domain.state.lock();

            // If this is too early to see it, then `revoke()` finds the file.
            if domain.revoked.load(Relaxed) {
                return Err(ENODEV);
            }
            let id = (mapping.id(), state.next());
            state
                .files
                .try_create_and_insert(id, mapping, GFP_KERNEL_ACCOUNT)?;
            id
        };
        let context = Arc::pin_init(
            pin_init!(Self {
                domain: domain.clone(),
                account,
                user: UserId::unique(),
                id,
                keys <- new_mutex!(Keys {
                    next: KEY_ALIGN,
                    objects: RBTree::new(),
                }),
            }),
            GFP_KERNEL_ACCOUNT,
        );

        if context.is_err() {
            let file = domain.state.lock().files.remove(&id);

            drop(file);
        }
        context
    }

    /// Returns the limit, and what is allocated at present.
    pub fn usage(&self) -> Usage {
        Usage {
            size: self.account.limit.load(Relaxed),
            used: self.account.used.load(Relaxed),
            objects: self.account.counters.objects.load(Relaxed),
            mappings: self.account.counters.mappings.load(Relaxed),
        }
    }

    /// Lowers the limit to `limit` bytes.
    ///
    /// It may be lower than what is allocated already. A file that is passed on to somebody else
    /// remains the same one: what it allocates may hold what it has left there before.
    ///
    /// # Errors
    ///
    /// `EPERM` if it is higher than it was.
    pub fn lower_limit(&self, limit: usize) -> Result {
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

    /// Writes what there is to tell about the file: for [`MiscDevice::show_fdinfo`].
    pub fn show_fdinfo(&self, m: &SeqFile) {
        let usage = self.usage();

        seq_print!(m, "p2pdma-limit:\t{}\n", usage.size);
        seq_print!(m, "p2pdma-allocated:\t{}\n", usage.used);
        seq_print!(m, "p2pdma-objects:\t{}\n", usage.objects);
        seq_print!(m, "p2pdma-mappings:\t{}\n", usage.mappings);
    }

    /// Allocates the memory of an object, `ENOSPC` if there is not enough.
    fn alloc_object(&self, source: usize, nr_pages: usize, pgoff: usize) -> Result<Arc<Object>> {
        let entered = self.domain.enter()?;
        let backend = entered.source(source).ok_or(EINVAL)?;

        // Do not clear memory for one who cannot be served in the end.
        if nr_pages > backend.nr_pages().saturating_sub(backend.nr_used()) {
            return Err(ENOSPC);
        }
        let charge = Charge::new(&self.account, nr_pages)?;
        // Nothing to warn of, however much it is.
        let mut pieces = KVVec::with_capacity(nr_pages, GFP_KERNEL_ACCOUNT | __GFP_NOWARN)?;
        let mut start = 0;

        while start < nr_pages {
            // It takes long to clear much memory, and nobody shall have to wait for that.
            if current!().fatal_signal_pending() {
                return Err(EINTR);
            }
            if self.domain.revoked.load(Relaxed) {
                return Err(ENODEV);
            }
            let folio = backend.alloc(MAX_ORDER, self.user).ok_or(ENOSPC)?;
            let end = start + folio.nr_pages();

            pieces.push(Piece { start, folio }, GFP_KERNEL_ACCOUNT)?;
            start = end;
        }

        let slot = Arc::pin_init(Slot::new(pieces), GFP_KERNEL_ACCOUNT)?;
        let id = {
            let mut state = self.domain.state.lock();
            let id = state.next();

            state
                .slots
                .try_create_and_insert(id, slot.clone(), GFP_KERNEL_ACCOUNT)?;
            id
        };
        let object = Object {
            domain: self.domain.clone(),
            id,
            source,
            pgoff,
            slot,
            charge,
        };

        object.count(|counters| {
            counters.objects.fetch_add(1, Relaxed);
        });
        Ok(Arc::new(object, GFP_KERNEL_ACCOUNT)?)
    }

    /// Allocates an object of `size` bytes, and returns the offset, in bytes, to map it at.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if the size is 0 or not a multiple of the page size, or there is no such source.
    /// - `EDQUOT` if it would exceed the limit of the file.
    /// - `ENOSPC` if the source has not got as much, or there have been too many objects.
    /// - `ENODEV` if the domain has been revoked.
    /// - `EINTR` if the task is being killed.
    /// - `ENOMEM` if there is not enough memory to keep track of it.
    pub fn alloc(&self, source: usize, size: usize) -> Result<u64> {
        if size == 0 || !size.is_multiple_of(PAGE_SIZE) {
            return Err(EINVAL);
        }
        let nr_pages = size >> PAGE_SHIFT;
        // Offsets are not for those that fail in any case.
        if nr_pages
            > self
                .domain
                .enter()?
                .source(source)
                .ok_or(EINVAL)?
                .nr_pages()
        {
            return Err(ENOSPC);
        }
        // OVERFLOW: The number of pages is far below the maximum.
        let room = nr_pages.next_multiple_of(KEY_ALIGN);

        let pgoff = {
            let mut keys = self.keys.lock();
            let pgoff = keys.next;

            if room > KEY_END - pgoff {
                return Err(ENOSPC);
            }
            keys.next += room;
            pgoff
        };
        let object = self.alloc_object(source, nr_pages, pgoff)?;

        self.keys
            .lock()
            .objects
            .try_create_and_insert(pgoff, object, GFP_KERNEL_ACCOUNT)?;
        // CAST: A `usize` is at most 64 bits wide.
        Ok((pgoff << PAGE_SHIFT) as u64)
    }

    /// Frees the object that is mapped at `offset`, in bytes.
    ///
    /// It cannot be mapped any more. The memory is free once it is neither mapped nor under DMA.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such object.
    pub fn free(&self, offset: u64) -> Result {
        let offset = usize::try_from(offset).map_err(|_| ENOENT)?;

        if !offset.is_multiple_of(PAGE_SIZE) {
            return Err(ENOENT);
        }
        let object = self
            .keys
            .lock()
            .objects
            .remove(&(offset >> PAGE_SHIFT))
            .ok_or(ENOENT)?;

        // Not under the lock.
        drop(object);
        Ok(())
    }

    /// Returns the object to be mapped at `pgoff` with that size, both in pages.
    fn object(&self, pgoff: usize, nr_pages: usize) -> Result<Arc<Object>> {
        let keys = self.keys.lock();
        let object = keys.objects.get(&pgoff).ok_or(EINVAL)?;

        if object.nr_pages() != nr_pages {
            return Err(EINVAL);
        }
        Ok(object.clone())
    }

    /// Prepares a mapping of the file: for [`MiscDevice::mmap_prepare`].
    ///
    /// # Errors
    ///
    /// - `EINVAL` if the mapping is private, or if its offset into the file is neither 0 nor that
    ///   of an object that is as large as the mapping.
    /// - `ENOMEM` if it is at offset 0 and larger than the memory.
    /// - `ENODEV` if the domain has been revoked.
    pub fn mmap_prepare<D: MapDevice>(&self, desc: &VmaDesc<MiscFile<D>>) -> Result {
        let nr_pages = desc.size() >> PAGE_SHIFT;
        let source = match desc.pgoff() {
            0 => 0,
            pgoff => self.object(pgoff, nr_pages)?.source,
        };
        let entered = self.domain.enter()?;
        let backend = entered.source(source).ok_or(EINVAL)?;

        desc.set_p2pdma_ops::<Mapping<D>>(backend.pagemap())?;
        if nr_pages > backend.nr_pages() {
            return Err(ENOMEM);
        }
        Ok(())
    }
}

#[pinned_drop]
impl PinnedDrop for Context {
    fn drop(self: Pin<&mut Self>) {
        let file = self.domain.state.lock().files.remove(&self.id);

        // May sleep for long, so not under the lock.
        drop(file);
    }
}

/// A misc device whose files can be mapped.
pub trait MapDevice: MiscDevice {
    /// Returns the context of an open file, which has to be one that [`Context::open`] returned for
    /// this file: what is mapped by way of another one cannot be taken back.
    fn context(file: <Self::Ptr as ForeignOwnable>::Borrowed<'_>) -> Arc<Context>;
}

/// The private data of the VMAs.
struct Mapping<D> {
    object: Arc<Object>,
    // By which `Domain::revoke` finds the VMA, even if the driver has dropped it already.
    _context: Arc<Context>,
    _device: PhantomData<fn() -> D>,
}

impl<D> Mapping<D> {
    fn new(object: Arc<Object>, context: Arc<Context>) -> Self {
        object.count(|counters| {
            counters.mappings.fetch_add(1, Relaxed);
        });
        Self {
            object,
            _context: context,
            _device: PhantomData,
        }
    }
}

impl<D> Drop for Mapping<D> {
    fn drop(&mut self) {
        self.object.count(|counters| {
            counters.mappings.fetch_sub(1, Relaxed);
        });
    }
}

impl<D: MapDevice> VmOps for Mapping<D> {
    type File = MiscFile<D>;

    fn mapped(
        file: <D::Ptr as ForeignOwnable>::Borrowed<'_>,
        range: Range<usize>,
        pgoff: usize,
    ) -> Result<Arc<Self>> {
        let context = D::context(file);
        let nr_pages = range.len() >> PAGE_SHIFT;
        let object = match pgoff {
            0 => context.alloc_object(0, nr_pages, 0).map_err(|e| {
                // As `p2pmem/allocate` tells it.
                if e == ENOSPC {
                    ENOMEM
                } else {
                    e
                }
            })?,
            // It may have been freed since `mmap_prepare()`.
            pgoff => context.object(pgoff, nr_pages)?,
        };

        Ok(Arc::new(Self::new(object, context), GFP_KERNEL_ACCOUNT)?)
    }

    fn fault(this: ArcBorrow<'_, Self>, fault: &VmFault) -> FaultResult {
        let object = &this.object;
        let Some(page) = fault.pgoff().checked_sub(object.pgoff) else {
            return FaultResult::SigBus;
        };
        let pieces = object.slot.pieces.lock();

        match Slot::find(&pieces, page) {
            // Under the lock: what is inserted has to be there when `revoke()` unmaps it.
            Some((folio, index)) => fault.insert_page(folio, index),
            None => FaultResult::SigBus,
        }
    }
}
