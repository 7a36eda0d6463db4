//! The connections of a media thread, by their tokens.

use mio::Token;
use slab::Slab;

/// Bits of a token that hold the index of a slot. The others hold a generation.
const INDEX_BITS: u32 = usize::BITS / 2;

const INDEX_MASK: usize = (1 << INDEX_BITS) - 1;

/// Slots that are used again, each time under another token: a late event or message finds no stranger in
/// the slot of a connection that is gone.
pub(super) struct Slots<T> {
    /// Boxed, since a slot keeps its size while it is empty.
    slots: Slab<(Token, Box<T>)>,
    /// Generation of the next token.
    generation: usize,
}

impl<T> Slots<T> {
    pub(super) const fn new() -> Self {
        Self { slots: Slab::new(), generation: 0 }
    }

    /// The token that the next [`insert`](Self::insert) gives.
    pub(super) fn next_token(&self) -> Token {
        Token(self.generation << INDEX_BITS | self.slots.vacant_key())
    }

    pub(super) fn insert(&mut self, value: T) -> Token {
        let token = self.next_token();
        self.generation = self.generation.wrapping_add(1);
        self.slots.insert((token, Box::new(value)));
        token
    }

    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        let (own, value) = self.slots.get_mut(token.0 & INDEX_MASK)?;
        (*own == token).then_some(value)
    }

    /// Takes the value out if it `is_gone`.
    pub(super) fn remove_if(
        &mut self,
        token: Token,
        is_gone: impl FnOnce(&T) -> bool,
    ) -> Option<Box<T>> {
        self.get_mut(token).filter(|value| is_gone(value))?;
        Some(self.slots.remove(token.0 & INDEX_MASK).1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, &T)> {
        self.slots.iter().map(|(_, (token, value))| (*token, &**value))
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_never_finds_the_next_user_of_its_slot() {
        let mut slots = Slots::new();
        let (expected, kept) = (slots.next_token(), slots.insert("kept"));
        let gone = slots.insert("gone");
        assert_eq!(expected, kept);
        assert!(slots.remove_if(gone, |_| false).is_none());
        assert_eq!(slots.remove_if(gone, |_| true).as_deref(), Some(&"gone"));
        let next = slots.insert("next");
        assert_eq!(next.0 & INDEX_MASK, gone.0 & INDEX_MASK, "the slot is used again");
        assert_eq!(slots.get_mut(gone), None);
        assert_eq!(slots.get_mut(next), Some(&mut "next"));
        assert!(slots.remove_if(gone, |_| true).is_none());
        assert_eq!(slots.iter().collect::<Vec<_>>(), [(kept, &"kept"), (next, &"next")]);
        assert_eq!((slots.len(), slots.is_empty()), (2, false));
    }
}
