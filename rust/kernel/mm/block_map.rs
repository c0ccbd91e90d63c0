// SPDX-License-Identifier: GPL-2.0

//! Allocation of naturally aligned blocks, without locks.
//!
//! A [`BlockMap`] records which units are in use, and allocates them as [`Block`]s: naturally
//! aligned blocks whose size is a power of two. The map deals with the indices of units only. The
//! units are usually pages of device memory; a block of them can become a folio.
//!
//! The last reference to such a page may be dropped in hard interrupt context, or with interrupts
//! disabled even on `PREEMPT_RT`. The page has to be freed there, where code cannot take a
//! `spinlock_t`. Therefore the map has no locks.
//!
//! # Examples
//!
//! ```
//! use kernel::mm::block_map::{
//!     Block,
//!     BlockMap, //
//! };
//!
//! let map = BlockMap::new(100, GFP_KERNEL)?;
//!
//! let large = map.alloc(6).ok_or(ENOSPC)?;
//! assert_eq!(large.range(), 0..64);
//! assert_eq!(map.alloc(6), None);
//! assert_eq!(map.alloc_up_to(6), Block::new(64, 5));
//!
//! map.claim(Block::new(97, 0).ok_or(EINVAL)?)?;
//! assert_eq!(map.claim(Block::new(96, 1).ok_or(EINVAL)?), Err(EBUSY));
//!
//! map.free(large)?;
//! assert_eq!(map.free(large), Err(EINVAL));
//! assert_eq!(map.used(), 32 + 1);
//! # Ok::<(), Error>(())
//! ```

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

#[cfg(CONFIG_RUST_BLOCK_MAP_KUNIT_TEST)]
mod tests;

/// The number of units in a word of the map.
const WORD_UNITS: usize = usize::BITS as usize;

/// The order of a block that fills a word of the map.
const WORD_ORDER: u32 = usize::BITS.ilog2();

/// A naturally aligned block of `2^order` units.
///
/// A block is only a pair of numbers. It does not own the units, see [`BlockMap::free`].
///
/// # Invariants
///
/// - `order` is less than `usize::BITS`.
/// - `first` is a multiple of `2^order`.
/// - `first + 2^order` does not overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    first: usize,
    order: u32,
}

impl Block {
    /// Creates the block of `2^order` units that starts at unit `first`.
    ///
    /// Returns [`None`] if this block is not naturally aligned, or if its end exceeds a `usize`.
    pub fn new(first: usize, order: u32) -> Option<Self> {
        let nr_units = 1usize.checked_shl(order)?;
        first.checked_add(nr_units)?;

        // INVARIANT: `checked_shl()` returns `None` unless `order` is less than `usize::BITS`.
        first
            .is_multiple_of(nr_units)
            .then_some(Self { first, order })
    }

    /// Returns the index of the first unit.
    #[inline]
    pub fn first(self) -> usize {
        self.first
    }

    /// Returns the order, which is the logarithm to base 2 of the number of units.
    #[inline]
    pub fn order(self) -> u32 {
        self.order
    }

    /// Returns the number of units.
    #[inline]
    pub fn nr_units(self) -> usize {
        1 << self.order
    }

    /// Returns the indices of the units.
    #[inline]
    pub fn range(self) -> Range<usize> {
        self.first..self.first + self.nr_units()
    }
}

/// Returns a word with the lowest `2^order` bits set. `order` is at most [`WORD_ORDER`].
fn low_bits(order: u32) -> usize {
    usize::MAX >> (usize::BITS - (1 << order))
}

/// Returns the lowest bit at which a naturally aligned block of `order` is free in the word `used`.
/// `order` is at most [`WORD_ORDER`].
fn find_free(used: usize, order: u32) -> Option<u32> {
    let mut free = !used;

    // Before each round, the set bits are those at which a run of `2^i` free units starts.
    for i in 0..order {
        free &= free >> (1 << i);
    }
    // In the quotient, each bit whose number is a multiple of `2^order` is set.
    free &= usize::MAX / low_bits(order);

    (free != 0).then(|| free.trailing_zeros())
}

/// Sets the bits of `mask` in a word if all of them are clear, and returns whether they were.
fn set_bits(word: &Atomic<usize>, mask: usize) -> bool {
    let mut used = word.load(Relaxed);

    while used & mask == 0 {
        match word.cmpxchg(used, used | mask, Acquire) {
            Ok(_) => return true,
            Err(now) => used = now,
        }
    }

    false
}

/// Clears the bits of `mask` in a word if all of them are set, and returns whether they were.
fn clear_bits(word: &Atomic<usize>, mask: usize) -> bool {
    let mut used = word.load(Relaxed);

    while used & mask == mask {
        match word.cmpxchg(used, used & !mask, Release) {
            Ok(_) => return true,
            Err(now) => used = now,
        }
    }

    false
}

/// Sets all bits of a word if all of them are clear, and returns whether they were.
fn set_word(word: &Atomic<usize>) -> bool {
    word.cmpxchg(0, usize::MAX, Acquire).is_ok()
}

/// Clears all bits of a word if all of them are set, and returns whether they were.
fn clear_word(word: &Atomic<usize>) -> bool {
    word.cmpxchg(usize::MAX, 0, Release).is_ok()
}

/// Sets all bits of `words` if all of them are clear, and returns whether they were. If not, it
/// clears the words again that it has set.
//
// Callers cannot make each other fail. Of two blocks that overlap, one contains the other, as they
// are naturally aligned. Words are set upwards and cleared downwards, so what a caller has set is
// always the beginning of its block. Two callers hence meet at the first word of the smaller block:
// one of them gets it and goes on, and only the other fails.
fn set_words(words: &[Atomic<usize>]) -> bool {
    let nr_set = words.iter().take_while(|word| set_word(word)).count();

    if nr_set == words.len() {
        return true;
    }
    for word in words.iter().take(nr_set).rev() {
        clear_word(word);
    }
    false
}

/// Does the same as [`set_words`], but looks at all words first: setting words in vain could make
/// other callers fail.
fn claim_words(words: &[Atomic<usize>]) -> bool {
    words.iter().all(|word| word.load(Relaxed) == 0) && set_words(words)
}

/// Claims the lowest free block of `order` in a word, and returns its first bit. `order` is at most
/// [`WORD_ORDER`].
fn alloc_bits(word: &Atomic<usize>, order: u32) -> Option<u32> {
    let mut used = word.load(Relaxed);

    loop {
        let bit = find_free(used, order)?;

        match word.cmpxchg(used, used | low_bits(order) << bit, Acquire) {
            Ok(_) => return Some(bit),
            Err(now) => used = now,
        }
    }
}

/// A map that records which units are in use, and allocates naturally aligned blocks of them.
///
/// The map takes one bit for each unit. Any number of callers may use it at once, in any context
/// except NMI: only [`BlockMap::new`] allocates memory, and no method takes a lock.
///
/// # Forward progress
///
/// All methods are lock-free: they repeat a step only if another caller has changed the same word.
///
/// - An allocation searches the map once. It misses a block that another caller frees after the
///   search has passed it.
/// - A block of more than `BITS_PER_LONG` units is claimed word by word. If one of its words turns
///   out to be in use, those before it are freed again. Until then, other callers cannot get them.
///
/// # Ordering
///
/// Allocating and claiming have acquire semantics if they succeed, and freeing has release
/// semantics: what the previous owner of a unit did before freeing it happens before what the next
/// owner does. This holds even if other units of the same word were allocated or freed in between,
/// as words are only changed by atomic read-modify-write operations.
///
/// This orders memory accesses by processors. Before units are freed, DMA to them must have ended,
/// and write-combined writes to them must have been flushed.
///
/// # Invariants
///
/// - `words` has `len.div_ceil(WORD_UNITS)` elements.
/// - Bit `i % WORD_UNITS` of word `i / WORD_UNITS` is set if unit `i` is in use.
/// - The bits from `len` on, which stand for no unit, are set.
pub struct BlockMap {
    words: KVVec<Atomic<usize>>,
    len: usize,
    /// The number of units in use, updated after the words.
    used: Atomic<usize>,
    /// The word at which a search starts. All words below it are full, unless a race has left it
    /// too high.
    hint: Atomic<usize>,
}

impl BlockMap {
    /// Creates a map of `nr_units` units, all of which are free.
    pub fn new(nr_units: usize, flags: Flags) -> Result<Self> {
        let nr_words = nr_units.div_ceil(WORD_UNITS);
        let mut words = KVVec::with_capacity(nr_words, flags)?;

        for i in 0..nr_words {
            let used = match nr_units - i * WORD_UNITS {
                left @ 1..WORD_UNITS => usize::MAX << left,
                _ => 0,
            };
            words.push(Atomic::new(used), flags)?;
        }

        // INVARIANT: Of the `nr_words` words, only the bits that stand for no unit are set.
        Ok(Self {
            words,
            len: nr_units,
            used: Atomic::new(0),
            hint: Atomic::new(0),
        })
    }

    /// Returns the number of units of the map, in use or not.
    #[inline]
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of units in use.
    ///
    /// Units that other callers allocate or free at the same time may be counted or not. A unit
    /// that is not counted any more can be allocated.
    #[inline]
    pub fn used(&self) -> usize {
        // Units that are allocated again before `free()` updates the counter are counted twice.
        // Acquire pairs with the release in `free()`.
        self.used.load(Acquire).min(self.len)
    }

    /// Allocates a block of `2^order` units.
    ///
    /// The result is usually the lowest free block, and always if nobody has used the map at the
    /// same time. So small blocks stay together and leave room for large ones.
    ///
    /// Returns [`None`] if no free block is found. [`BlockMap`] describes when a free block is
    /// missed.
    pub fn alloc(&self, order: u32) -> Option<Block> {
        if 1usize.checked_shl(order)? > self.len {
            return None;
        }

        let hint = self.advance_hint();

        // The word of the hint serves most allocations.
        if order <= WORD_ORDER {
            if let Some(bit) = self
                .words
                .get(hint)
                .and_then(|word| alloc_bits(word, order))
            {
                self.used.add(1 << order, Relaxed);
                // INVARIANT: This is a naturally aligned block of units of the map.
                // CAST: `bit` is less than `usize::BITS`.
                let first = hint * WORD_UNITS + bit as usize;
                return Some(Block { first, order });
            }
        }

        // A block is a part of one word, or consists of one or several whole words.
        let nr_words = 1 << order.saturating_sub(WORD_ORDER);
        // PANIC: `nr_words` is not 0.
        let places = self.words.chunks_exact(nr_words).enumerate();
        let start = hint.div_ceil(nr_words);

        let alloc_in = |(i, words): (usize, &[Atomic<usize>])| {
            let bit = match words {
                [word] => alloc_bits(word, order)?,
                _ => claim_words(words).then_some(0)?,
            };

            // INVARIANT: This is a naturally aligned block of units of the map.
            // CAST: `bit` is less than `usize::BITS`.
            let first = i * nr_words * WORD_UNITS + bit as usize;
            Some(Block { first, order })
        };

        // The hint may be too high, so search below it as well.
        let mut above = places.clone().skip(start);
        let mut below = places.take(start);
        let block = above
            .find_map(alloc_in)
            .or_else(|| below.find_map(alloc_in))?;

        self.used.add(block.nr_units(), Relaxed);
        self.lower_hint(block);
        // The words of a large block are full. The next search need not look at them.
        if order > WORD_ORDER {
            let word = block.first / WORD_UNITS;
            let _ = self.hint.cmpxchg(word, word + nr_words, Relaxed);
        }

        Some(block)
    }

    /// Allocates the largest free block of at most `2^order` units.
    ///
    /// Returns [`None`] if not even a single unit is found. This may search the map once for each
    /// order. Callers that want several blocks should not ask for a larger order than that of the
    /// block before.
    pub fn alloc_up_to(&self, order: u32) -> Option<Block> {
        if order == 0 {
            return self.alloc(0);
        }
        // `used()` may be too high while others use the map, so search for one unit in any case.
        let free = (self.len - self.used()).max(1);
        let mut orders = (0..=order.min(free.ilog2())).rev();

        orders.find_map(|order| self.alloc(order))
    }

    /// Claims a given block.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if the block is not within the map.
    /// - `EBUSY` if a unit of the block is in use. No unit has been claimed then.
    pub fn claim(&self, block: Block) -> Result {
        let (words, mask) = self.bits(block).ok_or(EINVAL)?;

        let claimed = match words {
            [word] => set_bits(word, mask),
            _ => claim_words(words),
        };

        if !claimed {
            return Err(EBUSY);
        }

        self.used.add(block.nr_units(), Relaxed);
        Ok(())
    }

    /// Frees a block.
    ///
    /// The caller must own all units of the block. It may have allocated them as other blocks.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the block is not within the map, or if a unit of it is not in use. Except in the
    /// last case below, no unit has been freed then. The first time a warning is logged. If several
    /// callers free the same block at the same time, one of them succeeds. If they free overlapping
    /// blocks of several words, a part of a block may be freed. The map does not know the owners of
    /// units: freeing a unit that already has a new owner is not detected.
    pub fn free(&self, block: Block) -> Result {
        let freed = match self.bits(block) {
            Some(([word], mask)) => {
                if clear_bits(word, mask) {
                    block.nr_units()
                } else {
                    0
                }
            }
            // Look at all words first, so that nothing is freed if a unit is not in use.
            Some((words, _)) if words.iter().all(|w| w.load(Relaxed) == usize::MAX) => {
                words.iter().take_while(|w| clear_word(w)).count() << WORD_ORDER
            }
            _ => 0,
        };

        // Release pairs with the acquire in `used()`.
        self.used.fetch_sub(freed, Release);

        if freed != block.nr_units() {
            pr_warn_once!("block map: freed {:?} that is not in use\n", block);
            return Err(EINVAL);
        }

        self.lower_hint(block);
        Ok(())
    }

    /// Returns the words of a block, and the bits of the block in each of them, or [`None`] if the
    /// block is not within the map.
    fn bits(&self, block: Block) -> Option<(&[Atomic<usize>], usize)> {
        let Range { start, end } = block.range();
        let words = start / WORD_UNITS..end.div_ceil(WORD_UNITS);
        let mask = low_bits(block.order.min(WORD_ORDER)) << (start % WORD_UNITS);

        (end <= self.len).then_some((self.words.get(words)?, mask))
    }

    /// Moves the hint past words whose bits are all set, and returns it.
    fn advance_hint(&self) -> usize {
        let hint = self.hint.load(Relaxed);
        let words = self.words.iter().skip(hint);
        let nr_full = words.take_while(|w| w.load(Relaxed) == usize::MAX).count();

        // If this fails, another caller has moved the hint.
        if nr_full != 0 {
            let _ = self.hint.cmpxchg(hint, hint + nr_full, Relaxed);
        }

        hint + nr_full
    }

    /// Moves the hint down to the first word of a block, unless it is there or below already.
    fn lower_hint(&self, block: Block) {
        let word = block.first / WORD_UNITS;
        let mut hint = self.hint.load(Relaxed);

        while word < hint {
            hint = self.hint.cmpxchg(hint, word, Relaxed).err().unwrap_or(word);
        }
    }
}
