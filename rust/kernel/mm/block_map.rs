// SPDX-License-Identifier: GPL-2.0

//! Lock-free allocation of blocks of units.
//!
//! A [`BlockMap`] tells which units of something are in use. The units are usually the pages of a
//! range of memory, but the map only deals with their indices. It hands them out as [`Block`]s,
//! which are naturally aligned powers of two, so that a block can become a folio.
//!
//! No method takes a lock, sleeps, or disables anything, and but for [`BlockMap::new`] none
//! allocates memory. This is for allocators of device memory that has `struct page`s: the last
//! reference to such a page may go away in hard interrupt context, or in a section of code that has
//! interrupts disabled even on `PREEMPT_RT`, and then the page has to go back where it came from.

use crate::{
    alloc::Flags,
    pr_warn_once,
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Relaxed,
        Release, //
    },
};
use core::ops::Range;

/// The order of a block that fills a word of the map, which is a `BITS_PER_LONG` of units.
const WORD_ORDER: u32 = usize::BITS.ilog2();

/// The number of units in a word of the map.
const WORD_UNITS: usize = 1 << WORD_ORDER;

/// A naturally aligned block of `2^order` units.
///
/// This is but a pair of numbers, and owns nothing: see [`BlockMap::free`].
///
/// # Invariants
///
/// - `order` is less than `usize::BITS`.
/// - `first` is a multiple of `2^order`.
/// - `first + 2^order` does not overflow.
///
/// # Examples
///
/// ```
/// use kernel::mm::block_map::Block;
///
/// let block = Block::new(24, 3).ok_or(EINVAL)?;
///
/// assert_eq!(block.first(), 24);
/// assert_eq!(block.order(), 3);
/// assert_eq!(block.nr_units(), 8);
/// assert_eq!(block.range(), 24..32);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    first: usize,
    order: u32,
}

impl Block {
    /// Creates the block of `2^order` units that starts at unit `first`.
    ///
    /// Returns [`None`] if such a block would not be naturally aligned, or if it would reach beyond
    /// the largest index.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::mm::block_map::Block;
    ///
    /// assert!(Block::new(6, 1).is_some());
    /// assert!(Block::new(6, 2).is_none());
    /// assert!(Block::new(0, usize::BITS).is_none());
    /// assert!(Block::new(usize::MAX, 0).is_none());
    /// ```
    pub fn new(first: usize, order: u32) -> Option<Self> {
        let nr_units = 1usize.checked_shl(order)?;

        if !first.is_multiple_of(nr_units) {
            return None;
        }
        first.checked_add(nr_units)?;

        // INVARIANT: `checked_shl()` is for an `order` less than `usize::BITS`. The others have
        // just been checked.
        Some(Self { first, order })
    }

    /// Returns the index of the first unit.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::mm::block_map::Block;
    ///
    /// assert_eq!(Block::new(12, 2).ok_or(EINVAL)?.first(), 12);
    /// # Ok::<(), Error>(())
    /// ```
    #[inline]
    pub fn first(self) -> usize {
        self.first
    }

    /// Returns the order, which is the logarithm to base 2 of the number of units.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::mm::block_map::Block;
    ///
    /// assert_eq!(Block::new(12, 2).ok_or(EINVAL)?.order(), 2);
    /// # Ok::<(), Error>(())
    /// ```
    #[inline]
    pub fn order(self) -> u32 {
        self.order
    }

    /// Returns the number of units.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::mm::block_map::Block;
    ///
    /// assert_eq!(Block::new(12, 2).ok_or(EINVAL)?.nr_units(), 4);
    /// # Ok::<(), Error>(())
    /// ```
    #[inline]
    pub fn nr_units(self) -> usize {
        // OVERFLOW: By the type invariant, `order` is less than `usize::BITS`.
        1 << self.order
    }

    /// Returns the indices of the units.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::mm::block_map::Block;
    ///
    /// assert_eq!(Block::new(12, 2).ok_or(EINVAL)?.range(), 12..16);
    /// # Ok::<(), Error>(())
    /// ```
    #[inline]
    pub fn range(self) -> Range<usize> {
        // OVERFLOW: By the type invariant, the sum does not overflow.
        self.first..self.first + self.nr_units()
    }
}

/// Returns a word with the lowest `2^order` bits set.
///
/// `order` must not be greater than [`WORD_ORDER`].
const fn low_bits(order: u32) -> usize {
    // OVERFLOW: `1 << order` is at least 1 and at most `usize::BITS`.
    usize::MAX >> (usize::BITS - (1 << order))
}

/// Returns a word in which those bits are set that a block of `order` can start at.
///
/// `order` must not be greater than [`WORD_ORDER`].
const fn start_bits(order: u32) -> usize {
    let mut starts = 1;
    let mut distance = usize::BITS;

    // There is one start at every multiple of `distance`.
    while distance >> order > 1 {
        distance /= 2;
        // OVERFLOW: `distance` is at most half of `usize::BITS`.
        starts |= starts << distance;
    }

    starts
}

/// Returns the lowest bit of `used` at which a block of `order` has all its bits clear.
///
/// `order` must not be greater than [`WORD_ORDER`].
fn find_free(used: usize, order: u32) -> Option<u32> {
    let mut free = !used;

    // Before each round, a bit of `free` says that a run of `1 << i` clear bits starts there; the
    // round joins it with the run that follows.
    for i in 0..order {
        // OVERFLOW: `i` is less than `WORD_ORDER`, and thus `1 << i` less than `usize::BITS`.
        free &= free >> (1 << i);
    }
    free &= start_bits(order);

    (free != 0).then(|| free.trailing_zeros())
}

/// Claims the lowest free block of `order` in a word, disregarding the bits of `skip`.
///
/// `order` must not be greater than [`WORD_ORDER`]. Returns the first bit of the block.
fn claim_any(word: &Atomic<usize>, skip: usize, order: u32) -> Option<u32> {
    let mut used = word.load(Relaxed);

    loop {
        let bit = find_free(used | skip, order)?;

        // OVERFLOW: `bit` is the position of a bit.
        match word.cmpxchg(used, used | low_bits(order) << bit, Acquire) {
            Ok(_) => return Some(bit),
            Err(now) => used = now,
        }
    }
}

/// Claims the bits of `mask` in a word, and returns whether all of them were free.
///
/// Changes nothing otherwise.
fn claim_bits(word: &Atomic<usize>, mask: usize) -> bool {
    let mut used = word.load(Relaxed);

    while used & mask == 0 {
        match word.cmpxchg(used, used | mask, Acquire) {
            Ok(_) => return true,
            Err(now) => used = now,
        }
    }

    false
}

/// Frees the bits of `mask` in a word, and returns whether all of them were in use.
///
/// Changes nothing otherwise.
fn free_bits(word: &Atomic<usize>, mask: usize) -> bool {
    let mut used = word.load(Relaxed);

    while used & mask == mask {
        match word.cmpxchg(used, used & !mask, Release) {
            Ok(_) => return true,
            Err(now) => used = now,
        }
    }

    false
}

/// Claims all bits of all `words`, and returns whether all of them were free.
///
/// Restores the words that it had claimed otherwise.
fn claim_words(words: &[Atomic<usize>]) -> bool {
    // Look first: writing to words that have to be restored costs more, and others would see them
    // in use in the meantime.
    words.iter().all(|word| word.load(Relaxed) == 0) && claim_words_or_restore(words)
}

/// Does the work of [`claim_words`] once the words look free.
fn claim_words_or_restore(words: &[Atomic<usize>]) -> bool {
    // Go up, while `free_words()` goes down: who finds the first word free does not then run into
    // words that are still to be freed.
    for (i, word) in words.iter().enumerate() {
        if word.cmpxchg(0, usize::MAX, Acquire).is_err() {
            free_words(words.iter().take(i));
            return false;
        }
    }

    true
}

/// Frees all bits of all `words`, from the last to the first, and returns the number of words that
/// it did this with.
///
/// Stops at a word that is not wholly in use.
//
// Where `claim_words()` undoes its own work, there is nothing to release. What the previous owner
// has released must not get lost, though: a plain store in place of the read-modify-write
// operation would do that, as well as overwrite what a stray `free()` has led to.
fn free_words<'a>(words: impl DoubleEndedIterator<Item = &'a Atomic<usize>>) -> usize {
    let mut freed = 0;

    for word in words.rev() {
        if word.cmpxchg(usize::MAX, 0, Release).is_err() {
            break;
        }
        // OVERFLOW: This is at most the number of words.
        freed += 1;
    }

    freed
}

/// Where in the map a block is.
enum Place<'a> {
    /// It is the bits of a mask in one word.
    Bits(&'a Atomic<usize>, usize),
    /// It is all bits of several words.
    Words(&'a [Atomic<usize>]),
}

/// A map of which units are in use, that allocates naturally aligned blocks of them.
///
/// The map has one bit for each unit. Any number of callers may use it at the same time, from any
/// context.
///
/// # Forward progress
///
/// All methods but [`BlockMap::new`] are lock-free: they repeat a step only if somebody else has
/// changed the same word in the meantime, and look at each word of the map at most twice for each
/// order they try. [`BlockMap::alloc`] therefore may fail to find a free block that comes up behind
/// the point it has got to.
///
/// Blocks that are larger than a word, which has a `BITS_PER_LONG` of units, are claimed one word
/// after another. If this does not succeed, the words are freed again. In the meantime others see
/// them in use, and may fail to allocate, or to claim, units that in fact nobody gets.
///
/// # Ordering
///
/// Whoever gets a block by [`BlockMap::alloc`], [`BlockMap::alloc_up_to`] or [`BlockMap::claim`]
/// synchronizes with everyone who has freed a unit of it before: these methods have acquire
/// semantics when they succeed, and [`BlockMap::free`] has release semantics. What happened to a
/// unit before it was freed hence happens before what its next owner does to it. All changes to a
/// word are atomic read-modify-write operations, so that this holds even if others changed
/// different bits of the same word in between.
///
/// This is about accesses to memory. Writes to a device, and most of all those that went through a
/// write-combining mapping, have to be flushed before the block is freed.
///
/// # Invariants
///
/// - `words` has `len.div_ceil(WORD_UNITS)` elements.
/// - A bit of `words` below `len` is set if and only if the unit is in use, or if it belongs to a
///   block larger than a word that is just being claimed or freed.
/// - The bits from `len` on are set.
/// - `next` is 0 or less than `len`.
///
/// # Examples
///
/// ```
/// use kernel::mm::block_map::BlockMap;
///
/// let map = BlockMap::new(100, GFP_KERNEL)?;
///
/// let large = map.alloc(6).ok_or(ENOSPC)?;
/// assert_eq!(large.range(), 0..64);
///
/// // There is no second one, but this is what comes closest.
/// assert!(map.alloc(6).is_none());
/// let rest = map.alloc_up_to(6).ok_or(ENOSPC)?;
/// assert_eq!(rest.range(), 64..96);
/// assert_eq!(map.available(), 4);
///
/// map.free(large)?;
/// map.free(rest)?;
/// assert_eq!(map.available(), 100);
/// # Ok::<(), Error>(())
/// ```
pub struct BlockMap {
    words: KVVec<Atomic<usize>>,
    len: usize,
    /// The unit to start the next search at: those below are in use, for all that is known. This is
    /// only a hint, which others may overwrite at the same time.
    next: Atomic<usize>,
    /// The number of units in use, changed after the words.
    used: Atomic<usize>,
}

impl BlockMap {
    /// Creates a map of `nr_units` units, all of which are free.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if the memory for the map cannot be allocated.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::mm::block_map::BlockMap;
    ///
    /// let map = BlockMap::new(1000, GFP_KERNEL)?;
    ///
    /// assert_eq!(map.len(), 1000);
    /// assert_eq!(map.used(), 0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(nr_units: usize, flags: Flags) -> Result<Self> {
        let nr_words = nr_units.div_ceil(WORD_UNITS);
        // Nothing to warn of, however large it is to be.
        let flags = flags | __GFP_NOWARN;
        let mut words = KVVec::with_capacity(nr_words, flags)?;

        for i in 0..nr_words {
            // OVERFLOW: The word `i` starts at a unit less than `nr_units`.
            let left = nr_units - (i << WORD_ORDER);

            // The last word may have bits that stand for no unit.
            let used = if left < WORD_UNITS {
                // OVERFLOW: `left` is less than `usize::BITS`.
                usize::MAX << left
            } else {
                0
            };

            words.push(Atomic::new(used), flags)?;
        }

        // INVARIANT: `words` has just been filled accordingly, and `next` is 0.
        Ok(Self {
            words,
            len: nr_units,
            next: Atomic::new(0),
            used: Atomic::new(0),
        })
    }

    /// Returns the number of units of the map, in use or not.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::mm::block_map::BlockMap;
    ///
    /// assert_eq!(BlockMap::new(3, GFP_KERNEL)?.len(), 3);
    /// # Ok::<(), Error>(())
    /// ```
    #[inline]
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of units that are in use.
    ///
    /// This reads a counter, which is updated right after the map. The result takes into account
    /// every call that happened before this one, and may or may not take into account those that
    /// run at the same time. It is exact if there are none.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::mm::block_map::BlockMap;
    ///
    /// let map = BlockMap::new(100, GFP_KERNEL)?;
    /// let block = map.alloc(3).ok_or(ENOSPC)?;
    ///
    /// assert_eq!(map.used(), 8);
    /// map.free(block)?;
    /// assert_eq!(map.used(), 0);
    /// # Ok::<(), Error>(())
    /// ```
    #[inline]
    pub fn used(&self) -> usize {
        // A unit that has been claimed again before it was subtracted is counted twice.
        self.used.load(Relaxed).min(self.len)
    }

    /// Returns the number of units that are free.
    ///
    /// This is as exact as [`BlockMap::used`] is. That so many are free does not mean that there is
    /// a block of them.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::mm::block_map::BlockMap;
    ///
    /// let map = BlockMap::new(100, GFP_KERNEL)?;
    /// let block = map.alloc(3).ok_or(ENOSPC)?;
    ///
    /// assert_eq!(map.available(), 92);
    /// # Ok::<(), Error>(())
    /// ```
    #[inline]
    pub fn available(&self) -> usize {
        // OVERFLOW: `used()` is at most `len`.
        self.len - self.used()
    }

    /// Allocates a block of `2^order` units.
    ///
    /// The search begins at the lowest unit that may be free, as far as is known, and takes the
    /// first block that fits. So small blocks stay together, and leave room for large ones, what
    /// has been freed is used again soon, and few words are looked at as long as there is room.
    ///
    /// Returns [`None`] if fewer units are available, or if no free block was found in one pass
    /// over the map. While others allocate and free, there may be one nevertheless: see [Forward
    /// progress](BlockMap#forward-progress).
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::mm::block_map::BlockMap;
    ///
    /// let map = BlockMap::new(16, GFP_KERNEL)?;
    ///
    /// let unit = map.alloc(0).ok_or(ENOSPC)?;
    /// assert_eq!(unit.range(), 0..1);
    /// assert_eq!(map.alloc(3).ok_or(ENOSPC)?.range(), 8..16);
    /// assert_eq!(map.alloc(1).ok_or(ENOSPC)?.range(), 2..4);
    /// assert!(map.alloc(3).is_none());
    /// map.free(unit)?;
    /// assert_eq!(map.alloc(0), Some(unit));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn alloc(&self, order: u32) -> Option<Block> {
        if 1usize.checked_shl(order)? > self.available() {
            return None;
        }

        let next = self.next.load(Relaxed);
        let first = if order <= WORD_ORDER {
            self.alloc_bits(order)?
        } else {
            self.alloc_words(order)?
        };

        // INVARIANT: A map has no more than `usize::MAX` units, and `first` is the start of a block
        // of `order` in it.
        let block = Block { first, order };

        self.used.add(block.nr_units(), Relaxed);

        // A larger block may have left units behind that were too few for it.
        let end = block.range().end;
        if order == 0 || first == next {
            // INVARIANT: The value is 0 or less than `len`.
            self.next
                .store(if end < self.len { end } else { 0 }, Relaxed);
        }

        Some(block)
    }

    /// Allocates the largest block of at most `2^order` units that can be had.
    ///
    /// Returns [`None`] only if not even a single unit was found, with the same limits as in
    /// [`BlockMap::alloc`].
    ///
    /// This may take a pass over the map for each order. A caller who wants many blocks should not
    /// ask for more than the order of the last one that it got.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::mm::block_map::BlockMap;
    ///
    /// let map = BlockMap::new(7, GFP_KERNEL)?;
    ///
    /// assert_eq!(map.alloc_up_to(9).ok_or(ENOSPC)?.range(), 0..4);
    /// assert_eq!(map.alloc_up_to(9).ok_or(ENOSPC)?.range(), 4..6);
    /// assert_eq!(map.alloc_up_to(9).ok_or(ENOSPC)?.range(), 6..7);
    /// assert!(map.alloc_up_to(9).is_none());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn alloc_up_to(&self, order: u32) -> Option<Block> {
        let order = order.min(self.available().checked_ilog2()?);

        (0..=order).rev().find_map(|order| self.alloc(order))
    }

    /// Claims a given block.
    ///
    /// # Errors
    ///
    /// In either case no unit has been claimed.
    ///
    /// - `EINVAL` if the block is not within the map.
    /// - `EBUSY` if a unit of it is in use.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::mm::block_map::{
    ///     Block,
    ///     BlockMap, //
    /// };
    ///
    /// let map = BlockMap::new(100, GFP_KERNEL)?;
    /// let block = |first, order| Block::new(first, order).ok_or(EINVAL);
    ///
    /// map.claim(block(10, 1)?)?;
    /// assert_eq!(map.claim(block(11, 0)?), Err(EBUSY));
    /// assert_eq!(map.claim(block(8, 2)?), Err(EBUSY));
    /// assert_eq!(map.claim(block(96, 3)?), Err(EINVAL));
    /// map.claim(block(8, 1)?)?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn claim(&self, block: Block) -> Result {
        let claimed = match self.place(block).ok_or(EINVAL)? {
            Place::Bits(word, mask) => claim_bits(word, mask),
            Place::Words(words) => claim_words(words),
        };

        if !claimed {
            return Err(EBUSY);
        }

        self.used.add(block.nr_units(), Relaxed);
        Ok(())
    }

    /// Frees a block, which thereby may be allocated again right away.
    ///
    /// Only the owner of all of its units may free a block. It need not be the one that they were
    /// allocated as: a part of that may be freed, or several of them at once.
    ///
    /// May be called from any context.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the block is not within the map, or if not all of its units are in use, because
    /// some have been freed already, for example. Nothing is freed then, and the first time a
    /// warning is printed. This cannot detect that a unit has a new owner already.
    ///
    /// For blocks up to the size of a word, checking and freeing is one atomic operation. A larger
    /// block is freed one word after another, once all of it has been found to be in use. If
    /// someone frees the same block at the same time, then one of them succeeds and the other fails
    /// without having changed anything. If they free different blocks that overlap, then this
    /// method may notice with some units freed already. It leaves the remaining ones in use: it
    /// is not known whose they are, and units nobody uses do less harm than units with two owners.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::mm::block_map::{
    ///     Block,
    ///     BlockMap, //
    /// };
    ///
    /// let map = BlockMap::new(100, GFP_KERNEL)?;
    /// let block = map.alloc(2).ok_or(ENOSPC)?;
    ///
    /// // Give back the last unit, and then the other ones.
    /// map.free(Block::new(3, 0).ok_or(EINVAL)?)?;
    /// assert_eq!(map.free(block), Err(EINVAL));
    /// assert_eq!(map.used(), 3);
    /// map.free(Block::new(0, 1).ok_or(EINVAL)?)?;
    /// map.free(Block::new(2, 0).ok_or(EINVAL)?)?;
    /// assert_eq!(map.used(), 0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn free(&self, block: Block) -> Result {
        let freed = match self.place(block) {
            Some(Place::Bits(word, mask)) if free_bits(word, mask) => block.nr_units(),
            // Look first, so that nothing changes.
            Some(Place::Words(words)) if words.iter().all(|w| w.load(Relaxed) == usize::MAX) => {
                free_words(words.iter()) << WORD_ORDER
            }
            _ => 0,
        };

        self.used.fetch_sub(freed, Relaxed);

        if freed != 0 && block.first < self.next.load(Relaxed) {
            // INVARIANT: The value is less than `len`.
            self.next.store(block.first, Relaxed);
        }

        if freed != block.nr_units() {
            pr_warn_once!("block map: freed {:?} that is not in use\n", block);
            return Err(EINVAL);
        }

        Ok(())
    }

    /// Claims a free block of an `order` up to [`WORD_ORDER`], and returns its first unit.
    fn alloc_bits(&self, order: u32) -> Option<usize> {
        let next = self.next.load(Relaxed);
        let start = next >> WORD_ORDER;

        // Begin in the middle of a word, and in the end come back to it for the bits in front.
        let mut skip = !(usize::MAX << (next % WORD_UNITS));
        let words = self.words.iter().enumerate().cycle().skip(start);

        // OVERFLOW: There is more than one unit for each word.
        for (i, word) in words.take(self.words.len() + 1) {
            if let Some(bit) = claim_any(word, skip, order) {
                // CAST: A `usize` has less than `usize::MAX` bits.
                // OVERFLOW: By the type invariant, this is a unit of the map.
                return Some((i << WORD_ORDER) + bit as usize);
            }
            skip = 0;
        }

        None
    }

    /// Claims a free block of an `order` greater than [`WORD_ORDER`], and returns its first unit.
    fn alloc_words(&self, order: u32) -> Option<usize> {
        // OVERFLOW: The caller made sure that `order` is greater than `WORD_ORDER`, and that the
        // map has that many units.
        let nr_words = 1 << (order - WORD_ORDER);

        // The first block that does not start before the unit.
        let start = match self.next.load(Relaxed) {
            0 => 0,
            next => ((next - 1) >> order) + 1,
        };

        // PANIC: `nr_words` is not 0.
        let blocks = self.words.chunks_exact(nr_words).enumerate();
        let nr_blocks = blocks.len();

        blocks
            .cycle()
            .skip(start)
            .take(nr_blocks)
            .find(|(_, words)| claim_words(words))
            .map(|(i, _)| i << order)
    }

    /// Returns where a block is, or [`None`] if it is not within the map.
    fn place(&self, block: Block) -> Option<Place<'_>> {
        if block.range().end > self.len {
            return None;
        }

        let words = self.words.get(block.first >> WORD_ORDER..)?;

        if block.order <= WORD_ORDER {
            // OVERFLOW: `first % WORD_UNITS` is less than `usize::BITS`.
            let mask = low_bits(block.order) << (block.first % WORD_UNITS);

            Some(Place::Bits(words.first()?, mask))
        } else {
            Some(Place::Words(words.get(..block.nr_units() >> WORD_ORDER)?))
        }
    }
}

#[cfg(CONFIG_RUST_BLOCK_MAP_KUNIT_TEST)]
#[macros::kunit_tests(rust_kernel_block_map)]
mod tests {
    use super::*;
    use crate::{
        impl_has_hr_timer,
        sync::{
            atomic::Full,
            Arc,
            ArcBorrow,
            Completion, //
        },
        time::{
            hrtimer::{
                HrTimer,
                HrTimerCallback,
                HrTimerCallbackContext,
                HrTimerPointer,
                HrTimerRestart,
                RelativePinnedHardMode, //
            },
            Delta,
            Instant,
            Monotonic, //
        },
        workqueue, //
    };

    /// Some numbers of units: less than a word, whole words, and some more than that.
    const SIZES: [usize; 9] = [
        1,
        3,
        WORD_UNITS - 1,
        WORD_UNITS,
        WORD_UNITS + 1,
        2 * WORD_UNITS,
        4 * WORD_UNITS - 1,
        8 * WORD_UNITS,
        1000,
    ];

    fn block(first: usize, order: u32) -> Result<Block> {
        Block::new(first, order).ok_or(EINVAL)
    }

    #[test]
    fn block_new() -> Result {
        assert!(Block::new(usize::MAX, 0).is_none());
        assert!(Block::new(usize::MAX - 1, 0).is_some());
        assert!(Block::new(1 << (usize::BITS - 1), usize::BITS - 1).is_none());
        assert!(Block::new(0, usize::BITS).is_none());
        assert!(Block::new(0, u32::MAX).is_none());
        assert_eq!(
            block(0, usize::BITS - 1)?.nr_units(),
            1 << (usize::BITS - 1)
        );

        for order in 0..usize::BITS - 2 {
            assert_eq!(block(1 << order, order)?.range(), 1 << order..2 << order);
            assert!(order == 0 || Block::new(1 << (order - 1), order).is_none());
        }

        Ok(())
    }

    #[test]
    fn empty_map() -> Result {
        let map = BlockMap::new(0, GFP_KERNEL)?;

        assert_eq!(map.len(), 0);
        assert_eq!(map.available(), 0);
        assert!(map.alloc(0).is_none());
        assert!(map.alloc(WORD_ORDER + 1).is_none());
        assert!(map.alloc_up_to(WORD_ORDER + 1).is_none());
        assert_eq!(map.claim(block(0, 0)?), Err(EINVAL));
        assert_eq!(map.free(block(0, 0)?), Err(EINVAL));

        Ok(())
    }

    #[test]
    fn exhaustion() -> Result {
        for len in SIZES {
            let map = BlockMap::new(len, GFP_KERNEL)?;

            for unit in 0..len {
                assert_eq!(map.used(), unit);
                assert_eq!(map.alloc(0), Some(block(unit, 0)?));
            }

            assert_eq!(map.available(), 0);
            assert!(map.alloc(0).is_none());
            assert!(map.alloc_up_to(3).is_none());

            // Any unit can be freed and is found again, wherever the search begins.
            for unit in (0..len).rev() {
                map.free(block(unit, 0)?)?;
                assert_eq!(map.alloc(0), Some(block(unit, 0)?));
                assert!(map.alloc(0).is_none());
            }

            for unit in 0..len {
                map.free(block(unit, 0)?)?;
            }
            assert_eq!(map.used(), 0);
        }

        Ok(())
    }

    #[test]
    fn alignment() -> Result {
        for len in SIZES {
            for order in 0..usize::BITS + 2 {
                let map = BlockMap::new(len, GFP_KERNEL)?;
                let nr_blocks = len.checked_shr(order).unwrap_or(0);

                // As many as fit, one next to the other.
                for i in 0..nr_blocks {
                    assert_eq!(map.alloc(order), Some(block(i << order, order)?));
                }
                assert!(map.alloc(order).is_none());
                assert_eq!(map.used(), nr_blocks.checked_shl(order).unwrap_or(0));

                // Starting at each unit, too.
                for i in 0..nr_blocks {
                    map.free(block(i << order, order)?)?;
                    assert_eq!(map.alloc(order), Some(block(i << order, order)?));
                }
            }
        }

        Ok(())
    }

    #[test]
    fn fragmentation() -> Result {
        for len in SIZES {
            let map = BlockMap::new(len, GFP_KERNEL)?;

            for unit in (0..len).step_by(2) {
                map.claim(block(unit, 0)?)?;
            }
            assert_eq!(map.available(), len / 2);

            for order in 1..usize::BITS {
                assert!(map.alloc(order).is_none());
            }
            for unit in (1..len).step_by(2) {
                assert_eq!(map.alloc_up_to(WORD_ORDER + 1), Some(block(unit, 0)?));
            }
            assert_eq!(map.available(), 0);
        }

        Ok(())
    }

    #[test]
    fn blocks_join() -> Result {
        let map = BlockMap::new(8 * WORD_UNITS, GFP_KERNEL)?;
        let whole = block(0, WORD_ORDER + 3)?;

        // Units that were allocated one by one can be freed as one, and the other way round.
        for _ in 0..map.len() {
            map.alloc(0).ok_or(ENOSPC)?;
        }
        map.free(whole)?;

        assert_eq!(map.alloc(WORD_ORDER + 3), Some(whole));
        for unit in 0..map.len() {
            map.free(block(unit, 0)?)?;
        }
        assert_eq!(map.alloc(WORD_ORDER + 3), Some(whole));

        Ok(())
    }

    #[test]
    fn large_blocks() -> Result {
        let map = BlockMap::new(8 * WORD_UNITS + 1, GFP_KERNEL)?;

        assert!(map.alloc(WORD_ORDER + 4).is_none());
        let whole = map.alloc(WORD_ORDER + 3).ok_or(ENOSPC)?;
        assert_eq!(whole.range(), 0..8 * WORD_UNITS);
        assert_eq!(map.available(), 1);
        assert!(map.alloc(WORD_ORDER + 3).is_none());
        map.free(whole)?;

        // A single unit stands in the way of those it belongs to, and of no other.
        let unit = block(5 * WORD_UNITS + 7, 0)?;
        map.claim(unit)?;
        assert!(map.alloc(WORD_ORDER + 3).is_none());
        let half = map.alloc(WORD_ORDER + 2).ok_or(ENOSPC)?;
        assert_eq!(half.range(), 0..4 * WORD_UNITS);
        assert!(map.alloc(WORD_ORDER + 2).is_none());
        let quarter = map.alloc(WORD_ORDER + 1).ok_or(ENOSPC)?;
        assert_eq!(quarter.range(), 6 * WORD_UNITS..8 * WORD_UNITS);
        assert!(map.alloc(WORD_ORDER + 1).is_none());
        let word = map.alloc(WORD_ORDER).ok_or(ENOSPC)?;
        assert_eq!(word.range(), 4 * WORD_UNITS..5 * WORD_UNITS);

        for block in [half, quarter, word, unit] {
            map.free(block)?;
        }
        assert_eq!(map.alloc(WORD_ORDER + 3), Some(whole));

        Ok(())
    }

    #[test]
    fn lowest_first() -> Result {
        let map = BlockMap::new(3 * WORD_UNITS, GFP_KERNEL)?;

        for i in 0..5 {
            assert_eq!(map.alloc(0), Some(block(i, 0)?));
        }
        // What is free again is taken first.
        map.free(block(2, 0)?)?;
        assert_eq!(map.alloc(0), Some(block(2, 0)?));
        assert_eq!(map.alloc(0), Some(block(5, 0)?));

        // What a larger block leaves behind is not forgotten.
        assert_eq!(map.alloc(2), Some(block(8, 2)?));
        assert_eq!(map.alloc(0), Some(block(6, 0)?));
        assert_eq!(map.alloc(WORD_ORDER), Some(block(WORD_UNITS, WORD_ORDER)?));
        assert_eq!(map.alloc(0), Some(block(7, 0)?));
        assert_eq!(map.alloc(0), Some(block(12, 0)?));
        assert_eq!(map.alloc(1), Some(block(14, 1)?));

        // Not even if there is no more of what has been asked for.
        assert_eq!(
            map.alloc(WORD_ORDER),
            Some(block(2 * WORD_UNITS, WORD_ORDER)?)
        );
        assert_eq!(map.alloc(WORD_ORDER), None);
        assert_eq!(map.alloc(0), Some(block(13, 0)?));

        Ok(())
    }

    #[test]
    fn fallback() -> Result {
        let map = BlockMap::new(3 * WORD_UNITS + 7, GFP_KERNEL)?;

        for (first, order) in [
            (0, WORD_ORDER + 1),
            (2 * WORD_UNITS, WORD_ORDER),
            (3 * WORD_UNITS, 2),
            (3 * WORD_UNITS + 4, 1),
            (3 * WORD_UNITS + 6, 0),
        ] {
            assert_eq!(map.alloc_up_to(u32::MAX), Some(block(first, order)?));
        }
        assert!(map.alloc_up_to(u32::MAX).is_none());

        // Not more than what is asked for.
        map.free(block(0, WORD_ORDER + 1)?)?;
        assert_eq!(map.alloc_up_to(3), Some(block(0, 3)?));
        assert_eq!(map.alloc_up_to(0), Some(block(8, 0)?));

        Ok(())
    }

    #[test]
    fn claim_conflicts() -> Result {
        let map = BlockMap::new(8 * WORD_UNITS + 1, GFP_KERNEL)?;

        for unit in [0, 1, WORD_UNITS, 4 * WORD_UNITS - 1, 8 * WORD_UNITS - 1] {
            map.claim(block(unit, 0)?)?;

            for order in 0..=WORD_ORDER + 3 {
                assert_eq!(map.claim(block(unit >> order << order, order)?), Err(EBUSY));
                assert_eq!(map.used(), 1);
            }

            // Nothing else is in use.
            for other in 0..map.len() {
                assert_eq!(map.claim(block(other, 0)?).is_ok(), other != unit);
            }
            for other in 0..map.len() {
                map.free(block(other, 0)?)?;
            }
        }

        assert_eq!(map.claim(block(8 * WORD_UNITS, 1)?), Err(EINVAL));
        assert_eq!(map.claim(block(8 * WORD_UNITS + 1, 0)?), Err(EINVAL));
        assert_eq!(map.claim(block(0, WORD_ORDER + 4)?), Err(EINVAL));
        assert_eq!(map.used(), 0);
        map.claim(block(0, WORD_ORDER + 3)?)?;
        map.claim(block(8 * WORD_UNITS, 0)?)?;

        Ok(())
    }

    #[test]
    fn claim_rollback() -> Result {
        let map = BlockMap::new(8 * WORD_UNITS, GFP_KERNEL)?;

        // As if somebody took a unit after the words had been found free.
        for unit in (0..map.len()).step_by(WORD_UNITS / 2 - 1) {
            let unit = block(unit, 0)?;

            map.claim(unit)?;
            assert!(!claim_words_or_restore(&map.words));
            map.free(unit)?;
            assert!(map.words.iter().all(|word| word.load(Relaxed) == 0));
        }
        assert!(claim_words_or_restore(&map.words));

        Ok(())
    }

    #[test]
    fn double_free() -> Result {
        let map = BlockMap::new(8 * WORD_UNITS, GFP_KERNEL)?;

        for order in 0..=WORD_ORDER + 3 {
            let whole = block(0, order)?;

            assert_eq!(map.free(whole), Err(EINVAL));
            map.claim(whole)?;
            map.free(whole)?;
            assert_eq!(map.free(whole), Err(EINVAL));
            assert_eq!(map.used(), 0);

            // With any one unit missing, the others stay in use.
            map.claim(whole)?;
            for unit in whole.range() {
                map.free(block(unit, 0)?)?;
                assert_eq!(map.free(block(unit, 0)?), Err(EINVAL));
                assert_eq!(map.free(whole), Err(EINVAL));
                assert_eq!(map.used(), whole.nr_units() - 1);
                map.claim(block(unit, 0)?)?;
            }

            // Half of it is missing.
            if order > 0 {
                map.free(block(whole.nr_units() / 2, order - 1)?)?;
                assert_eq!(map.free(whole), Err(EINVAL));
                assert_eq!(map.used(), whole.nr_units() / 2);
                map.free(block(0, order - 1)?)?;
            } else {
                map.free(whole)?;
            }
            assert_eq!(map.used(), 0);
        }

        // Out of bounds.
        assert_eq!(map.free(block(8 * WORD_UNITS, 0)?), Err(EINVAL));
        assert_eq!(map.free(block(0, WORD_ORDER + 4)?), Err(EINVAL));

        // Bits that stand for no unit are in use, but nobody's.
        let map = BlockMap::new(WORD_UNITS / 2 + 1, GFP_KERNEL)?;
        assert_eq!(map.free(block(WORD_UNITS / 2 + 1, 0)?), Err(EINVAL));
        assert_eq!(map.free(block(WORD_UNITS - 1, 0)?), Err(EINVAL));
        assert_eq!(map.free(block(0, WORD_ORDER)?), Err(EINVAL));
        assert_eq!(map.used(), 0);

        Ok(())
    }

    /// A map together with who owns which of its units.
    #[pin_data]
    struct Stress {
        map: BlockMap,
        /// 0 for a unit that nobody owns.
        owners: KVVec<Atomic<u32>>,
        errors: Atomic<usize>,
        allocated: Atomic<usize>,
        running: Atomic<usize>,
        #[pin]
        done: Completion,
    }

    impl Stress {
        /// The largest order that is tried.
        const MAX_ORDER: u32 = WORD_ORDER + 2;

        fn new(nr_units: usize, running: usize) -> Result<Arc<Self>> {
            let mut owners = KVVec::with_capacity(nr_units, GFP_KERNEL)?;
            for _ in 0..nr_units {
                owners.push(Atomic::new(0), GFP_KERNEL)?;
            }

            Arc::pin_init(
                try_pin_init!(Self {
                    map: BlockMap::new(nr_units, GFP_KERNEL)?,
                    owners,
                    errors: Atomic::new(0),
                    allocated: Atomic::new(0),
                    running: Atomic::new(running),
                    done <- Completion::new(),
                }),
                GFP_KERNEL,
            )
        }

        /// Passes each unit of a block from owner `from` to owner `to`.
        fn pass(&self, block: Block, from: u32, to: u32) {
            let passed = self.owners.get(block.range()).is_some_and(|owners| {
                // Do not stop at the first that fails.
                let bad = |owner: &&Atomic<u32>| owner.cmpxchg(from, to, Relaxed).is_err();
                owners.iter().filter(bad).count() == 0
            });

            if !passed {
                self.errors.add(1, Relaxed);
            }
        }

        /// Gets a block of `order`, or what there is, in one of the three ways.
        fn get(&self, owner: u32, order: u32, random: u32) -> Option<Block> {
            let block = match random % 3 {
                0 => self.map.alloc(order),
                1 => self.map.alloc_up_to(order),
                _ => {
                    // CAST: It does not matter what is left of it.
                    let first = random as usize % self.map.len();

                    Block::new(first >> order << order, order)
                        .filter(|block| self.map.claim(*block).is_ok())
                }
            }?;

            self.allocated.add(1, Relaxed);
            self.pass(block, 0, owner);
            Some(block)
        }

        fn put(&self, owner: u32, block: Block) {
            self.pass(block, owner, 0);
            if self.map.free(block).is_err() {
                self.errors.add(1, Relaxed);
            }
        }

        /// Gets and puts blocks at random, for some time.
        fn work(&self, owner: u32, duration: Delta) {
            let start = Instant::<Monotonic>::now();
            let mut random = Random(owner);
            let mut held: [Option<Block>; 4] = [None; 4];

            while (start.elapsed() - duration).is_negative() {
                for slot in &mut held {
                    *slot = match slot.take() {
                        Some(block) => {
                            self.put(owner, block);
                            None
                        }
                        None => {
                            let order = random.next() % (Self::MAX_ORDER + 1);
                            self.get(owner, order, random.next())
                        }
                    };

                    // Do not always go on with the same slot.
                    if random.next() % 4 == 0 {
                        break;
                    }
                }
            }

            for block in held.into_iter().flatten() {
                self.put(owner, block);
            }

            if self.running.fetch_sub(1, Full) == 1 {
                self.done.complete_all();
            }
        }

        /// Returns whether all went well and nothing is in use any more.
        fn is_clean(&self) -> bool {
            self.errors.load(Relaxed) == 0
                && self.map.used() == 0
                && self.owners.iter().all(|owner| owner.load(Relaxed) == 0)
                && (0..self.map.len())
                    .all(|unit| block(unit, 0).is_ok_and(|block| self.map.claim(block).is_ok()))
        }
    }

    /// Numbers that look random enough.
    struct Random(u32);

    impl Random {
        fn next(&mut self) -> u32 {
            self.0 = self.0.wrapping_mul(1664525).wrapping_add(1013904223);
            self.0 >> 8
        }
    }

    #[test]
    fn concurrent() -> Result {
        const NR_WORKERS: u32 = 4;

        for nr_units in [WORD_UNITS, 4 * WORD_UNITS + 3, 16 * WORD_UNITS] {
            // CAST: The number is small.
            let stress = Stress::new(nr_units, NR_WORKERS as usize)?;

            for owner in 1..=NR_WORKERS {
                let stress = stress.clone();

                workqueue::system_unbound().try_spawn(GFP_KERNEL, move || {
                    stress.work(owner, Delta::from_millis(200));
                })?;
            }
            stress.done.wait_for_completion();

            assert!(stress.allocated.load(Relaxed) > 0);
            assert!(stress.is_clean());
        }

        Ok(())
    }

    #[test]
    fn concurrent_free() -> Result {
        for order in [0, WORD_ORDER, WORD_ORDER + 1, WORD_ORDER + 3] {
            for _ in 0..20 {
                let stress = Stress::new(16 * WORD_UNITS, 2)?;
                let block = block(8 * WORD_UNITS, order)?;

                // Only one of those who free the same block gets away with it.
                stress.map.claim(block)?;
                for _ in 0..2 {
                    let stress = stress.clone();

                    workqueue::system_unbound().try_spawn(GFP_KERNEL, move || {
                        if stress.map.free(block).is_err() {
                            stress.errors.add(1, Relaxed);
                        }
                        if stress.running.fetch_sub(1, Full) == 1 {
                            stress.done.complete_all();
                        }
                    })?;
                }
                stress.done.wait_for_completion();

                assert_eq!(stress.errors.xchg(0, Relaxed), 1);
                assert!(stress.is_clean());
            }
        }

        Ok(())
    }

    /// A timer that frees, in hard interrupt context, the blocks that a thread puts into `slots`.
    #[pin_data]
    struct Freer {
        #[pin]
        timer: HrTimer<Self>,
        stress: Arc<Stress>,
        slots: [Atomic<usize>; 8],
        freed: Atomic<usize>,
    }

    impl Freer {
        const THREAD: u32 = 1;
        const INTERRUPT: u32 = 2;

        fn new(stress: Arc<Stress>) -> Result<Arc<Self>> {
            Arc::pin_init(
                pin_init!(Self {
                    timer <- HrTimer::new(),
                    stress,
                    slots: [const { Atomic::new(0) }; 8],
                    freed: Atomic::new(0),
                }),
                GFP_KERNEL,
            )
        }

        /// Fills the slots that are empty.
        fn fill(&self, random: &mut Random) {
            for slot in self.slots.iter().filter(|slot| slot.load(Relaxed) == 0) {
                let order = random.next() % (Stress::MAX_ORDER + 1);

                if let Some(block) = self.stress.get(Self::THREAD, order, random.next()) {
                    // CAST: An order is less than 256. A block is never 0, as a slot must not be.
                    let value = ((block.first() + 1) << 8) | block.order() as usize;
                    slot.store(value, Release);
                }
            }
        }

        /// Frees what is in the slots.
        fn empty(&self) {
            for slot in &self.slots {
                let value = slot.xchg(0, Acquire);

                if value != 0 {
                    // CAST: This is the order, see `fill()`.
                    match Block::new((value >> 8) - 1, (value & 0xff) as u32) {
                        Some(block) => self.stress.put(Self::THREAD, block),
                        None => self.stress.errors.add(1, Relaxed),
                    }
                    self.freed.add(1, Relaxed);
                }
            }
        }
    }

    impl_has_hr_timer! {
        impl HasHrTimer<Self> for Freer {
            mode: RelativePinnedHardMode<Monotonic>, field: self.timer
        }
    }

    impl HrTimerCallback for Freer {
        type Pointer<'a> = Arc<Self>;

        fn run(
            this: ArcBorrow<'_, Self>,
            mut ctx: HrTimerCallbackContext<'_, Self>,
        ) -> HrTimerRestart {
            this.empty();

            // Allocating works here as well.
            if let Some(block) = this.stress.get(Self::INTERRUPT, Stress::MAX_ORDER, 1) {
                this.stress.put(Self::INTERRUPT, block);
            }

            ctx.forward_now(Delta::from_micros(200));
            HrTimerRestart::Restart
        }
    }

    #[test]
    fn hard_interrupt() -> Result {
        let stress = Stress::new(8 * WORD_UNITS + 5, 0)?;
        let freer = Freer::new(stress.clone())?;
        let mut random = Random(3);

        let start = Instant::<Monotonic>::now();
        let timer = freer.clone().start(Delta::from_micros(200));

        // It is an error only if nothing is freed at all: this may be a slow machine.
        while freer.freed.load(Relaxed) < 5000
            && (start.elapsed() - Delta::from_millis(500)).is_negative()
        {
            freer.fill(&mut random);
        }

        drop(timer);
        assert!(freer.freed.load(Relaxed) > 0);

        freer.empty();
        assert!(stress.is_clean());

        Ok(())
    }
}
