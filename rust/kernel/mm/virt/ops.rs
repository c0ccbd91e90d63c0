// SPDX-License-Identifier: GPL-2.0

//! Operations of a VMA.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)
//!
//! Reference: <https://docs.kernel.org/filesystems/mmap_prepare.html>

// So far, the one thing that can be inserted into a VMA is peer-to-peer DMA memory.
#![cfg_attr(not(CONFIG_PCI_P2PDMA), allow(dead_code))]

#[cfg(CONFIG_PCI_P2PDMA)]
use super::{
    flags,
    vm_flags_t, //
};
use crate::{
    bindings,
    error::from_result,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    types::{
        ForeignOwnable,
        Opaque, //
    },
};
#[cfg(CONFIG_PCI_P2PDMA)]
use crate::{
    error::to_result,
    memremap::PagemapRef,
    mm::Folio, //
};
use core::{
    marker::PhantomData,
    ops::Range, //
};

/// A kind of files that [`VmOps`] can be implemented for.
///
/// This is what ties the operations of a VMA to the driver that the mapped file belongs to: a
/// [`VmaDesc<F>`] is only ever handed to the driver that owns the files of kind `F`, and only takes
/// operations which were written for these.
///
/// Drivers do not implement this. They use what the abstraction of their kind of device provides,
/// for example [`MiscFile`].
///
/// # Examples
///
/// What all kinds of files have in common is written for any of them:
///
/// ```
/// use kernel::{
///     mm::virt::{
///         MmapFile,
///         VmaDesc, //
///     },
///     page::PAGE_SIZE,
///     prelude::*, //
/// };
///
/// /// Refuses to map more than `len` bytes, or less.
/// fn check_range<F: MmapFile>(desc: &VmaDesc<F>, len: usize) -> Result {
///     if desc.pgoff() != 0 || desc.size() != len.next_multiple_of(PAGE_SIZE) {
///         return Err(EINVAL);
///     }
///     Ok(())
/// }
/// ```
///
/// # Safety
///
/// If [`Self::data`] returns `Some`, then what it returns must be valid for `'a`.
///
/// [`MiscFile`]: crate::miscdevice::MiscFile
pub unsafe trait MmapFile: 'static {
    /// The private data of an open file.
    type Data<'a>;

    /// Returns the private data of `file`, or `None` if it is not a file of this kind.
    ///
    /// # Safety
    ///
    /// `file` must point to an open file that is not released during `'a`.
    unsafe fn data<'a>(file: *const bindings::file) -> Option<Self::Data<'a>>;
}

/// A VMA of a file of kind `F` that is about to be created.
///
/// This is the `struct vm_area_desc` that the `mmap_prepare()` operation of a file gets. The VMA
/// does not exist at that time, and may never exist: what prepares it must not have effects that
/// would have to be undone. State that belongs to a VMA is set up by [`VmOps::mapped`].
///
/// # Invariants
///
/// This is the argument of a call to the `mmap_prepare()` operation of a file of kind `F`, and only
/// the thread that runs this call can access it.
#[repr(transparent)]
pub struct VmaDesc<F> {
    inner: Opaque<bindings::vm_area_desc>,
    _file: PhantomData<F>,
}

impl<F> VmaDesc<F> {
    /// Creates a reference to a [`VmaDesc`] from a raw pointer.
    ///
    /// # Safety
    ///
    /// For `'a`, `ptr` must be the argument of a call to the `mmap_prepare()` operation of a file
    /// of kind `F`, on the current thread, and not be accessed by anything else.
    #[inline]
    pub unsafe fn from_raw<'a>(ptr: *mut bindings::vm_area_desc) -> &'a Self {
        // CAST: `VmaDesc` is a transparent wrapper of `struct vm_area_desc`.
        // SAFETY: The caller promises that `ptr` is valid for `'a`.
        // INVARIANT: Promised by the caller. As the type is neither `Send` nor `Sync`, the
        // reference stays on this thread.
        unsafe { &*ptr.cast() }
    }

    /// Returns a raw pointer to the `struct vm_area_desc`.
    #[inline]
    pub fn as_raw(&self) -> *mut bindings::vm_area_desc {
        self.inner.get()
    }

    /// Returns the size in bytes. It is a multiple of the page size, and not zero.
    #[inline]
    pub fn size(&self) -> usize {
        // SAFETY: By the type invariant, this is valid and nobody else accesses it.
        unsafe { (*self.as_raw()).end - (*self.as_raw()).start }
    }

    /// Returns the offset into the file, in pages, that the VMA is going to start at.
    #[inline]
    pub fn pgoff(&self) -> usize {
        // SAFETY: By the type invariant, this is valid and nobody else accesses it.
        unsafe { (*self.as_raw()).pgoff }
    }

    /// Returns the flags, which are a combination of the constants in [`flags`].
    #[cfg(CONFIG_PCI_P2PDMA)]
    fn flags(&self) -> vm_flags_t {
        // SAFETY: By the type invariant, this is valid and nobody else accesses it.
        let flags = unsafe { (*self.as_raw()).vma_flags };

        // SAFETY: Any flags can be converted.
        unsafe { bindings::vma_flags_to_legacy(flags) }
    }

    /// Makes `T` the operations of the VMA, which is going to map pages of `pagemap`.
    ///
    /// The VMA gets the protection that these pages are mapped with, and [`flags::DONTEXPAND`] and
    /// [`flags::DONTDUMP`]. It can be split, moved and inherited on `fork()`, but neither grow nor
    /// be merged with another one.
    ///
    /// Returns [`EINVAL`] if the mapping is private.
    ///
    /// C function: `pci_p2pdma_mmap_prepare()`
    #[cfg(CONFIG_PCI_P2PDMA)]
    pub fn set_p2pdma_ops<T: VmOps<File = F>>(&self, pagemap: PagemapRef<'_>) -> Result {
        // In these, pages have another meaning than what `VmFault` takes care of.
        const UNSUPPORTED: vm_flags_t =
            flags::IO | flags::PFNMAP | flags::MIXEDMAP | flags::HUGETLB;

        if self.flags() & UNSUPPORTED != 0 {
            return Err(EINVAL);
        }

        // This refuses private mappings, in which a write would make a copy of the page.
        //
        // It also sets `VM_DONTEXPAND`, which is not a matter of taste. Whether two VMAs can be
        // merged is decided with no regard to `vm_ops` and `vm_private_data`. So a VMA without that
        // flag could grow to take in its neighbour, and the faults of the latter would go to the
        // data of the former. With the flag, which user space cannot clear, there are no merges at
        // all (`VMA_SPECIAL_FLAGS` in `vma_merge_new_range()` and `vma_merge_existing_range()`),
        // and `mremap()` can neither enlarge the VMA nor leave an empty copy of it behind. So each
        // VMA is what `mapped()` was called for, or a part of that.
        //
        // SAFETY: By the type invariant, `self` is valid and nobody else accesses it. By that of
        // `PagemapRef`, `pagemap` is a valid pagemap with an owner.
        to_result(unsafe { bindings::pci_p2pdma_mmap_prepare(self.as_raw(), pagemap.as_raw()) })?;

        // SAFETY: By the type invariant, `self` is valid and nobody else accesses it.
        unsafe {
            (*self.as_raw()).vm_ops = &VmaOpsTable::<T>::TABLE;
            (*self.as_raw()).private_data = core::ptr::null_mut();
        }
        Ok(())
    }
}

/// The operations of VMAs that map a file of kind [`VmOps::File`].
///
/// Each VMA with these operations owns a reference to an object of the type that implements the
/// trait. When user space maps a file, [`mapped`] says which object the VMA gets. When a VMA is
/// split, when it is moved by `mremap()`, and when it is copied by `fork()`, the second VMA gets a
/// reference to the same object. When a VMA goes away, its reference is dropped. This happens with
/// the `mmap_lock` of its address space held, which therefore must not be taken when the last
/// reference to an object is dropped, and user memory must not be accessed.
///
/// The operations are installed by [`VmaDesc::set_p2pdma_ops`].
///
/// # Examples
///
/// A driver that has one folio of peer-to-peer DMA memory for each open file. It leaves out what
/// takes the memory back when the device is unbound, for which `pci::p2pdma::mmap` is the better
/// way:
///
/// ```no_run
/// # #![cfg(CONFIG_PCI_P2PDMA)]
/// use core::ops::Range;
/// use kernel::{
///     fs::File,
///     miscdevice::{
///         MiscDevice,
///         MiscDeviceRegistration,
///         MiscFile, //
///     },
///     mm::{
///         virt::{
///             FaultResult,
///             VmFault,
///             VmOps,
///             VmaDesc, //
///         },
///         Folio, //
///     },
///     page::PAGE_SIZE,
///     sync::{
///         aref::ARef,
///         Arc,
///         ArcBorrow, //
///     }, //
/// };
///
/// struct Context {
///     folio: ARef<Folio>,
/// }
///
/// # fn allocate() -> Result<ARef<Folio>> { Err(ENOMEM) }
/// #[vtable]
/// impl MiscDevice for Context {
///     type Ptr = Arc<Self>;
///     type RegistrationData = ();
///
///     fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Arc<Self>> {
///         Ok(Arc::new(Self { folio: allocate()? }, GFP_KERNEL)?)
///     }
///
///     fn mmap_prepare(
///         me: ArcBorrow<'_, Self>,
///         _file: &File,
///         desc: &VmaDesc<MiscFile<Self>>,
///     ) -> Result {
///         if desc.pgoff() != 0 || desc.size() != me.folio.nr_pages() * PAGE_SIZE {
///             return Err(EINVAL);
///         }
///         desc.set_p2pdma_ops::<Mapping>(me.folio.pagemap().ok_or(EINVAL)?)
///     }
/// }
///
/// struct Mapping {
///     folio: ARef<Folio>,
/// }
///
/// impl VmOps for Mapping {
///     type File = MiscFile<Context>;
///
///     fn mapped(me: ArcBorrow<'_, Context>, _: Range<usize>, _: usize) -> Result<Arc<Self>> {
///         Ok(Arc::new(Self { folio: me.folio.clone() }, GFP_KERNEL)?)
///     }
///
///     fn fault(this: ArcBorrow<'_, Self>, fault: &VmFault) -> FaultResult {
///         fault.insert_page(&this.folio, fault.pgoff())
///     }
/// }
/// ```
///
/// [`mapped`]: VmOps::mapped
pub trait VmOps: Send + Sync + Sized + 'static {
    /// The kind of files whose VMAs have these operations.
    type File: MmapFile;

    /// Returns the object of a VMA that was created by `mmap()`.
    ///
    /// `data` is the private data of the file that is mapped, `range` are the addresses of the VMA
    /// in user space, and `pgoff` is the offset into the file, in pages, that it starts at. If this
    /// fails, so does the `mmap()`, with the same error.
    ///
    /// It is called after `mmap_prepare()` succeeded, once for each new VMA. Much may have happened
    /// in between, except that the file is still open.
    ///
    /// May sleep. The `mmap_lock` is held for writing, so user memory must not be accessed.
    fn mapped(
        data: <Self::File as MmapFile>::Data<'_>,
        range: Range<usize>,
        pgoff: usize,
    ) -> Result<Arc<Self>>;

    /// Handles a page fault.
    ///
    /// This is called for an access to a page of a VMA that nothing is mapped at. It may be called
    /// by several threads at once, even for the same page, and on behalf of another process.
    ///
    /// May sleep. Either the lock of the VMA or the `mmap_lock` is held for reading, so user memory
    /// must not be accessed.
    fn fault(this: ArcBorrow<'_, Self>, fault: &VmFault) -> FaultResult;
}

/// A page fault that is being handled.
///
/// # Invariants
///
/// This is the `struct vm_fault` of a call to the `fault()` operation that is running on the
/// current thread. Its VMA has the operations of a [`VmOps`], which were installed by
/// [`VmaDesc::set_p2pdma_ops`].
#[repr(transparent)]
pub struct VmFault(Opaque<bindings::vm_fault>);

impl VmFault {
    /// Creates a reference to a [`VmFault`] from a raw pointer.
    ///
    /// # Safety
    ///
    /// For `'a`, `ptr` must be the argument of a call to the `fault()` operation of a
    /// [`VmaOpsTable`] on the current thread.
    #[inline]
    unsafe fn from_raw<'a>(ptr: *mut bindings::vm_fault) -> &'a Self {
        // CAST: `VmFault` is a transparent wrapper of `struct vm_fault`.
        // SAFETY: The caller promises that `ptr` is valid for `'a`.
        // INVARIANT: Promised by the caller. As the type is neither `Send` nor `Sync`, the
        // reference stays on this thread.
        unsafe { &*ptr.cast() }
    }

    #[inline]
    fn as_raw(&self) -> *mut bindings::vm_fault {
        self.0.get()
    }

    /// Returns the offset into the file, in pages, of the page that is being accessed.
    #[inline]
    pub fn pgoff(&self) -> usize {
        // SAFETY: By the type invariant, this is valid. The field does not change.
        unsafe { (*self.as_raw()).__bindgen_anon_1.pgoff }
    }

    /// Maps the page `index` of `folio` at the address of the fault.
    ///
    /// The mapping owns a reference to the folio, which is put when the page is unmapped.
    ///
    /// This is for peer-to-peer DMA memory, see [`Folio::is_pci_p2pdma`]. Other folios are subject
    /// to rules about who may map them, and which locks to hold. The result is
    /// [`FaultResult::SigBus`] for these, if there is no such page in the folio, and if the VMA was
    /// prepared for a pagemap with another [`CacheMode`]. If there is a page at that address by
    /// now, it stays.
    ///
    /// May sleep.
    ///
    /// C function: `pci_p2pdma_insert_page()`
    ///
    /// [`CacheMode`]: crate::memremap::CacheMode
    #[cfg(CONFIG_PCI_P2PDMA)]
    pub fn insert_page(&self, folio: &Folio, index: usize) -> FaultResult {
        // Folios of this type are never split while they have references, so that the index stays
        // valid.
        if !folio.is_pci_p2pdma() || index >= folio.nr_pages() {
            return FaultResult::SigBus;
        }

        // SAFETY: We just checked that the folio has that page.
        let page = unsafe { bindings::folio_page(folio.as_raw(), index) };

        // SAFETY:
        // - By the type invariant, `self` is a fault that is being handled. Hence its VMA is locked
        //   for reading, and `VmaDesc::set_p2pdma_ops` made sure that it is a shared mapping, which
        //   does not get copies of its pages, and that it is none of those that hold no references
        //   to them.
        // - `page` belongs to `folio`, whose reference count is not zero. It is peer-to-peer DMA
        //   memory, which is neither anonymous, nor has it got a type, nor is it in a page cache.
        let ret = unsafe { bindings::pci_p2pdma_insert_page(self.as_raw(), page) };

        match ret {
            bindings::vm_fault_reason_VM_FAULT_NOPAGE => FaultResult::NoPage,
            bindings::vm_fault_reason_VM_FAULT_OOM => FaultResult::Oom,
            _ => FaultResult::SigBus,
        }
    }
}

/// What became of a page fault, `vm_fault_t`.
///
/// Not all of the values that C code may return are here. Some promise that a page was returned in
/// the `struct vm_fault`, others, like `VM_FAULT_RETRY`, that a lock was released.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum FaultResult {
    /// The access is to be repeated. If there is still nothing mapped then, there is another fault.
    NoPage,
    /// There is not enough memory. Once some is reclaimed, the access is repeated.
    Oom,
    /// The access failed. If it was by a task in user mode, this gets a `SIGBUS`.
    SigBus,
}

impl FaultResult {
    fn into_raw(self) -> bindings::vm_fault_t {
        match self {
            Self::NoPage => bindings::vm_fault_reason_VM_FAULT_NOPAGE,
            Self::Oom => bindings::vm_fault_reason_VM_FAULT_OOM,
            Self::SigBus => bindings::vm_fault_reason_VM_FAULT_SIGBUS,
        }
    }
}

/// The `struct vm_operations_struct` of `T`.
///
/// The `vm_private_data` of a VMA that has these operations is either `NULL`, or it is an `Arc<T>`
/// that the VMA owns:
///
/// - It is `NULL` until `mapped()` sets it. If `mapped()` fails, it stays like that for the short
///   remaining life of the VMA.
/// - `__split_vma()`, `copy_vma()` and `dup_mmap()` copy it to a new VMA along with all the rest,
///   and then call `open()`. If something fails in between, they free the copy and call nothing for
///   it.
/// - Each VMA that `mapped()` or `open()` was called for goes to `close()` at last, and only once,
///   as `vma_close()` takes away the operations. The exception is a nested `mmap()` operation that
///   fails after `mapped()` succeeded. This leaks the reference.
/// - No VMA disappears in another one, see [`VmaDesc::set_p2pdma_ops`].
struct VmaOpsTable<T>(PhantomData<T>);

impl<T: VmOps> VmaOpsTable<T> {
    /// # Safety
    ///
    /// This must be called for a new VMA as the `mapped()` operation of this table: `private_data`
    /// must be valid for writes, and `file` must be either `NULL` or the open file that is mapped.
    unsafe extern "C" fn mapped_callback(
        start: c_ulong,
        end: c_ulong,
        pgoff: c_ulong,
        file: *const bindings::file,
        private_data: *mut *mut c_void,
    ) -> c_int {
        from_result(|| {
            if file.is_null() {
                return Err(EINVAL);
            }

            // The file is asked what it is, for it need not be the one that `mmap_prepare()` was
            // called with: some `mmap()` operations call that of another file.
            //
            // SAFETY: The VMA keeps a reference to the file, which is therefore open.
            let data = unsafe { T::File::data(file) }.ok_or(EINVAL)?;
            let this = T::mapped(data, start..end, pgoff)?;

            // SAFETY: The caller promises that this can be written to.
            unsafe { *private_data = this.into_foreign() };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// `vma` must be valid, have the operations of this table, and be a copy of another such VMA.
    unsafe extern "C" fn open_callback(vma: *mut bindings::vm_area_struct) {
        // SAFETY: The caller promises that `vma` is valid. While this is called, nothing else can
        // access it.
        let private_data = unsafe { (*vma).vm_private_data };

        if !private_data.is_null() {
            // SAFETY: This is a copy of what another VMA owns. The `mmap_lock` of the latter is
            // held for writing, which is why it does not go away.
            let this = unsafe { Arc::<T>::borrow(private_data) };

            // This is a reference to the same object, and so is the pointer, which is there
            // already.
            let _ = Arc::from(this).into_foreign();
        }
    }

    /// # Safety
    ///
    /// `vma` must be valid and have the operations of this table, and it must not be used any more.
    unsafe extern "C" fn close_callback(vma: *mut bindings::vm_area_struct) {
        // SAFETY: The caller promises that `vma` is valid. No fault is being handled, for the VMA
        // was locked for writing when it was taken out of its address space, or there is nobody
        // left to use the address space.
        let private_data = unsafe { (*vma).vm_private_data };

        if !private_data.is_null() {
            // SAFETY: The VMA owns this `Arc<T>`, and is not used any more.
            drop(unsafe { Arc::<T>::from_foreign(private_data) });
        }
    }

    /// # Safety
    ///
    /// `vmf` must be a fault in a VMA that has the operations of this table. Either the VMA or its
    /// address space must be locked for reading.
    unsafe extern "C" fn fault_callback(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: The caller promises that `vmf` is valid, and so is its VMA.
        let private_data = unsafe { (*(*vmf).__bindgen_anon_1.vma).vm_private_data };

        // `mapped()` failed, and then unmapping the VMA failed, too.
        if private_data.is_null() {
            return FaultResult::SigBus.into_raw();
        }

        // SAFETY: The VMA owns this `Arc<T>`. Only `close()` drops it, which cannot be called while
        // the VMA or its address space is locked for reading: either of them has to be locked for
        // writing to take the VMA out of its address space.
        let this = unsafe { Arc::<T>::borrow(private_data) };

        // SAFETY: `vmf` is the argument of this call.
        let fault = unsafe { VmFault::from_raw(vmf) };

        T::fault(this, fault).into_raw()
    }

    /// Maps nothing ahead of a fault.
    ///
    /// An operation that does nothing is not the same as none. It tells that `fault()` does not
    /// need the `mmap_lock`. Without it, each fault is first tried with the lock of the VMA, and
    /// then, from the start, with the `mmap_lock`, see `vmf_can_call_fault()`. It is called in an
    /// RCU read-side critical section.
    ///
    /// That `fault()` does not need the `mmap_lock` is true: all that it gets is an object and a
    /// [`VmFault`], and `pci_p2pdma_insert_page()` gets along with the lock of the VMA. So it has
    /// to for DAX, too.
    extern "C" fn map_pages_callback(
        _vmf: *mut bindings::vm_fault,
        _start_pgoff: c_ulong,
        _end_pgoff: c_ulong,
    ) -> bindings::vm_fault_t {
        0
    }

    const TABLE: bindings::vm_operations_struct = bindings::vm_operations_struct {
        mapped: Some(Self::mapped_callback),
        open: Some(Self::open_callback),
        close: Some(Self::close_callback),
        fault: Some(Self::fault_callback),
        map_pages: Some(Self::map_pages_callback),
        ..pin_init::zeroed()
    };
}
