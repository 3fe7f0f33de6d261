//! Where the players of a writer loop stand: followers in one list, stragglers in another, each found by its id.
//!
//! Owns the lists and keeps the places right while players move between them. Refuses to know why they move.

use std::collections::HashMap;
use std::sync::Arc;

use super::reader::Reader;
use crate::net::Socket;

/// In which list a player stands, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Follower(usize),
    Straggler(usize),
}

/// What a batch touches of a follower: its socket. The rest stands by.
pub struct Follower {
    pub socket: Arc<Socket>,
    reader: Box<Reader>,
}

/// The players of a loop. Taking one out moves the last one of its list to its place; whoever walks a list and takes
/// out of it does so from the end.
#[derive(Default)]
pub struct Roster {
    followers: Vec<Follower>,
    // Boxed, because a change of list then moves a pointer and not 300 bytes.
    #[expect(clippy::vec_box)]
    stragglers: Vec<Box<Reader>>,
    places: HashMap<u64, Place>,
}

impl Roster {
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Where the player of this id stands; `None`: it is not here.
    pub fn find(&self, id: u64) -> Option<Place> {
        self.places.get(&id).copied()
    }

    pub fn followers(&self) -> &[Follower] {
        &self.followers
    }

    /// The follower at `place`, which is under the length of [`Self::followers`].
    pub fn follower(&mut self, place: usize) -> &mut Reader {
        &mut self.followers[place].reader
    }

    /// How many stragglers there are.
    pub fn stragglers(&self) -> usize {
        self.stragglers.len()
    }

    /// The straggler at `place`, which is under [`Self::stragglers`].
    pub fn straggler(&mut self, place: usize) -> &mut Reader {
        &mut self.stragglers[place]
    }

    /// Everybody.
    pub fn readers(&mut self) -> impl Iterator<Item = &mut Reader> {
        let followers = self.followers.iter_mut().map(|f| &mut *f.reader);
        followers.chain(self.stragglers.iter_mut().map(|r| &mut **r))
    }

    /// Puts a player among the followers.
    pub fn follow(&mut self, reader: Box<Reader>) {
        let place = Place::Follower(self.followers.len());
        self.places.insert(reader.id, place);
        self.followers.push(Follower {
            socket: reader.socket().clone(),
            reader,
        });
    }

    /// Puts a player among the stragglers, and tells where.
    pub fn straggle(&mut self, reader: Box<Reader>) -> usize {
        let place = self.stragglers.len();
        self.places.insert(reader.id, Place::Straggler(place));
        self.stragglers.push(reader);
        place
    }

    /// Takes the follower at `place` out.
    pub fn take_follower(&mut self, place: usize) -> Box<Reader> {
        let Follower { reader, .. } = self.followers.swap_remove(place);
        self.places.remove(&reader.id);
        if let Some(moved) = self.followers.get(place) {
            self.places.insert(moved.reader.id, Place::Follower(place));
        }
        reader
    }

    /// Takes the straggler at `place` out.
    pub fn take_straggler(&mut self, place: usize) -> Box<Reader> {
        let reader = self.stragglers.swap_remove(place);
        self.places.remove(&reader.id);
        if let Some(moved) = self.stragglers.get(place) {
            self.places.insert(moved.id, Place::Straggler(place));
        }
        reader
    }
}
