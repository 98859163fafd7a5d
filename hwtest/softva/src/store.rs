//! Objects by id. libva's clients name everything by a number; each kind of object has a range of
//! its own, so that an id in the trace tells its kind and a mixed-up id is found out.
//!
//! Invariants: an id is never used twice; an object lives until its last user lets go, so
//! destroying a surface in one thread never pulls it from under another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::status::{Outcome, Refusal};

/// The objects of one kind.
#[derive(Debug)]
pub struct Store<T> {
    kind: &'static str,
    missing: u32,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    next: u32,
    objects: HashMap<u32, Arc<T>>,
}

impl<T> Store<T> {
    /// An empty store: `kind` is its name in messages, `first` its first id, `missing` the status
    /// for an id that isn't there.
    pub fn new(kind: &'static str, first: u32, missing: u32) -> Self {
        let state = State { next: first, objects: HashMap::new() };
        Self { kind, missing, state: Mutex::new(state) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an object and names it.
    pub fn add(&self, object: T) -> u32 {
        self.add_shared(Arc::new(object))
    }

    /// Keeps an object that is in use elsewhere too.
    pub fn add_shared(&self, object: Arc<T>) -> u32 {
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        state.objects.insert(id, object);
        id
    }

    /// The object of an id.
    pub fn get(&self, id: u32) -> Outcome<Arc<T>> {
        self.lock().objects.get(&id).cloned().ok_or_else(|| self.unknown(id))
    }

    /// Forgets an object.
    pub fn remove(&self, id: u32) -> Outcome<Arc<T>> {
        self.lock().objects.remove(&id).ok_or_else(|| self.unknown(id))
    }

    fn unknown(&self, id: u32) -> Refusal {
        Refusal::new(self.missing, format!("no {} {id:#x}", self.kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::va;

    #[test]
    fn an_id_is_not_used_twice() {
        let store = Store::new("surface", 0x100, va::VA_STATUS_ERROR_INVALID_SURFACE);
        let first = store.add("a");
        store.remove(first).expect("kept");
        let second = store.add("b");
        assert_ne!(first, second);
        let refusal = store.get(first).expect_err("removed");
        assert_eq!(refusal.status, va::VA_STATUS_ERROR_INVALID_SURFACE as i32);
        assert_eq!(*store.get(second).expect("kept"), "b");
    }
}
