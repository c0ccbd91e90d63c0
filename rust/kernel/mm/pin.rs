// SPDX-License-Identifier: GPL-2.0

//! Memory of user space that is pinned for DMA.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use crate::{
    bindings,
    dma::DataDirection,
    error::to_result,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    uaccess::UserPtr, //
};
use core::{
    ops::Range,
    ptr::NonNull, //
};

/// How many pages are pinned by one call of `pin_user_pages_fast()`.
const MAX_PAGES: usize = 512;

/// A range of the memory of a process, whose pages are pinned.
///
/// The pages are RAM or peer-to-peer DMA memory of PCI functions, or a mixture of both. They are
/// pinned for the time of a request, as for direct I/O. So they are not charged to
/// `RLIMIT_MEMLOCK`, and there is no variant for `FOLL_LONGTERM`, which the core refuses for
/// peer-to-peer DMA memory. Drivers must limit the size, and unpin the pages when the request has
/// completed: until then, unbinding the device that has the memory waits. As with direct I/O, a
/// fault of a later page can wait for user space, for example for `userfaultfd()`, while earlier
/// pages are pinned already. The process can be killed then.
///
/// Dropping this unpins the pages. If a device was allowed to write to them, it also marks them
/// dirty, and may sleep.
///
/// [`PinnedMapping`](crate::dma::PinnedMapping) maps the memory for a device.
///
/// # Examples
///
/// ```
/// use kernel::{
///     dma::DataDirection,
///     mm::PinnedPages,
///     uaccess::UserPtr, //
/// };
///
/// /// Pins memory that a device is to fill.
/// fn pin_result(addr: UserPtr, len: usize) -> Result<PinnedPages> {
///     PinnedPages::new(addr, len, DataDirection::FromDevice)
/// }
///
/// // There is nothing to pin.
/// assert_eq!(pin_result(UserPtr::from_addr(0), 0).err(), Some(EINVAL));
/// // This test runs in a kernel thread, which has no memory of user space.
/// assert_eq!(pin_result(UserPtr::from_addr(4096), 1).err(), Some(EFAULT));
/// ```
///
/// # Invariants
///
/// `pin_user_pages_fast()` has returned each of `pages` once, and it has not been unpinned. Except
/// during [`PinnedPages::new`], `pages` are those of the `len` bytes that start at the byte
/// `offset` of the first one. `len` is not 0.
pub struct PinnedPages {
    pages: KVVec<NonNull<bindings::page>>,
    offset: usize,
    len: usize,
    direction: DataDirection,
}

// SAFETY: Any thread may unpin pages.
unsafe impl Send for PinnedPages {}

// SAFETY: A shared reference only permits reading the fields.
unsafe impl Sync for PinnedPages {}

impl PinnedPages {
    /// Pins `len` bytes of the memory of the current process, starting at `addr`, for DMA in
    /// `direction`.
    ///
    /// Faults in what is not present. May sleep. The caller must not hold a lock that page faults
    /// take, such as `mmap_lock`.
    ///
    /// C function: `pin_user_pages_fast()`, with `FOLL_PCI_P2PDMA`.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if `len` is 0 or `direction` is [`DataDirection::None`].
    /// - `EFAULT` if a part of the range is not mapped, or not writable although a device is to
    ///   write to it, or not memory that can be pinned; or if the task is a kernel thread.
    /// - `EINTR` if the process is being killed.
    /// - `ENOMEM` if there is not enough memory for the list of the pages.
    /// - Others of `pin_user_pages_fast()`.
    pub fn new(addr: UserPtr, len: usize, direction: DataDirection) -> Result<Self> {
        let addr = addr.as_mut_ptr().addr();
        let flags = match direction {
            DataDirection::None => return Err(EINVAL),
            DataDirection::ToDevice => bindings::FOLL_PCI_P2PDMA,
            _ => bindings::FOLL_PCI_P2PDMA | bindings::FOLL_WRITE,
        };

        if len == 0 {
            return Err(EINVAL);
        }
        // `pin_user_pages_fast()` uses `current->mm` without a check.
        if current!().mm().is_none() {
            return Err(EFAULT);
        }
        let offset = addr % PAGE_SIZE;
        let start = addr - offset;
        let nr_pages = addr
            .checked_add(len)
            .and_then(|end| end.checked_next_multiple_of(PAGE_SIZE))
            .ok_or(EFAULT)?
            .wrapping_sub(start)
            >> PAGE_SHIFT;

        // INVARIANT: There are no pages yet. If the loop below fails, dropping `pinned` unpins the
        // pages that the loop has added.
        let mut pinned = Self {
            // User space chooses the size, so do not warn if it is too large.
            pages: KVVec::with_capacity(nr_pages, GFP_KERNEL_ACCOUNT | __GFP_NOWARN)?,
            offset,
            len,
            direction,
        };

        while pinned.pages.len() < nr_pages {
            let done = pinned.pages.len();
            // The function may disable interrupts while it looks at as many pages.
            let left = (nr_pages - done).min(MAX_PAGES);

            if current!().fatal_signal_pending() {
                return Err(EINTR);
            }
            // CAST: `left` is at most `MAX_PAGES`.
            //
            // SAFETY: The task has memory of user space, as checked above. `pages` has spare
            // capacity for `left` pointers.
            let n = unsafe {
                bindings::pin_user_pages_fast(
                    start + (done << PAGE_SHIFT),
                    left as c_int,
                    flags,
                    pinned.pages.spare_capacity_mut().as_mut_ptr().cast(),
                )
            };

            to_result(n)?;
            if n == 0 {
                return Err(EFAULT);
            }
            // CAST: `n` is positive.
            //
            // SAFETY: The function has pinned `n` pages, and has written pointers to them.
            unsafe { pinned.pages.inc_len(n as usize) };
        }
        Ok(pinned)
    }

    /// Returns the number of bytes. It is not 0.
    #[inline]
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the direction of the DMA that the pages are pinned for.
    #[inline]
    pub fn direction(&self) -> DataDirection {
        self.direction
    }

    /// Returns the physically contiguous parts of the bytes in `range`, or [`None`] if the range
    /// is empty or exceeds the memory.
    pub(crate) fn segments(&self, range: Range<usize>) -> Option<Segments<'_>> {
        (range.start < range.end && range.end <= self.len).then(|| Segments {
            pages: &self.pages,
            // OVERFLOW: The pages are part of the address space.
            start: self.offset + range.start,
            end: self.offset + range.end,
        })
    }
}

impl Drop for PinnedPages {
    fn drop(&mut self) {
        let dirty = self.direction != DataDirection::ToDevice;

        // SAFETY: By the type invariant, each of these pages is pinned once.
        unsafe {
            bindings::unpin_user_pages_dirty_lock(
                self.pages.as_mut_ptr().cast(),
                self.pages.len(),
                dirty,
            )
        };
    }
}

/// A physically contiguous part of [`PinnedPages`]. All of it is RAM, or memory of one pagemap.
#[derive(Copy, Clone)]
pub(crate) struct Segment {
    /// The page of the first byte. It is pinned.
    pub(crate) page: NonNull<bindings::page>,
    /// The physical address of the first byte.
    pub(crate) phys: bindings::phys_addr_t,
    /// The length in bytes. It is not 0.
    pub(crate) len: usize,
}

impl Segment {
    /// Returns the physical address of the end.
    pub(crate) fn end(&self) -> bindings::phys_addr_t {
        // CAST: A `usize` is not wider than a physical address.
        self.phys + self.len as bindings::phys_addr_t
    }
}

/// An iterator over [`Segment`]s. Each is as long as possible.
#[derive(Clone)]
pub(crate) struct Segments<'a> {
    pages: &'a [NonNull<bindings::page>],
    /// The bytes that are left, counted from the start of the first page.
    start: usize,
    end: usize,
}

/// Returns whether `b` is the page after `a`, and of the same kind of memory.
fn are_adjacent(a: NonNull<bindings::page>, b: NonNull<bindings::page>) -> bool {
    let (a, b) = (a.as_ptr(), b.as_ptr());

    // SAFETY: The callers only pass pages that are pinned.
    unsafe {
        bindings::page_to_pfn(a) + 1 == bindings::page_to_pfn(b)
            && bindings::zone_device_pages_have_same_pgmap(a, b)
    }
}

impl Iterator for Segments<'_> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        if self.start >= self.end {
            return None;
        }

        let pages = self.pages.get(self.start >> PAGE_SHIFT..)?;
        let first = *pages.first()?;
        let offset = self.start % PAGE_SIZE;
        let more = pages.windows(2).take_while(|pair| match pair {
            [a, b] => are_adjacent(*a, *b),
            _ => false,
        });
        // The range may end in the middle of the last page.
        let len = (((1 + more.count()) << PAGE_SHIFT) - offset).min(self.end - self.start);

        self.start += len;
        // SAFETY: The page is pinned.
        let pfn = unsafe { bindings::page_to_pfn(first.as_ptr()) };

        Some(Segment {
            page: first,
            // CAST: A `usize` is not wider than a physical address.
            phys: (pfn as bindings::phys_addr_t) << PAGE_SHIFT | offset as bindings::phys_addr_t,
            len,
        })
    }
}
