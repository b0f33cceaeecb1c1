//! Which of many strings a given one begins with: a trie over bytes, so that a look-up reads no more of it than is needed to tell.
//!
//! It knows strings and numbers; what they stand for is the routes'.

use slab::Slab;

/// Numbers by the beginnings they are found under.
#[derive(Debug)]
pub(crate) struct Heads {
    nodes: Slab<Node>,
    root: u32,
}

/// One stretch of bytes that all below it have in common.
#[derive(Debug)]
struct Node {
    /// What follows on the parent's; empty only at the root.
    bytes: Box<[u8]>,
    /// By their first byte, ascending.
    children: Vec<(u8, u32)>,
    /// What is found here.
    here: Vec<u32>,
}

impl Heads {
    pub(crate) fn new() -> Heads {
        let mut nodes = Slab::new();
        let root = nodes.insert(Node { bytes: [].into(), children: Vec::new(), here: Vec::new() }) as u32;
        Heads { nodes, root }
    }

    pub(crate) fn insert(&mut self, head: &str, number: u32) {
        let (mut at, mut rest) = (self.root, head.as_bytes());
        while let Some(&byte) = rest.first() {
            let place = match self.place(at, byte) {
                Ok(place) => place,
                Err(place) => {
                    let leaf = self.nodes.insert(Node { bytes: rest.into(), children: Vec::new(), here: vec![number] }) as u32;
                    insert_child(&mut self.nodes[at as usize].children, place, (byte, leaf));
                    return;
                }
            };
            let child = self.nodes[at as usize].children[place].1;
            let bytes = &self.nodes[child as usize].bytes;
            let common = bytes.iter().zip(rest).take_while(|(one, other)| one == other).count();
            at = if common == bytes.len() { child } else { self.split(at, place, common) };
            rest = &rest[common..];
        }
        self.nodes[at as usize].here.push(number);
    }

    /// Puts a node between another and its child, whose bytes it begins with.
    fn split(&mut self, parent: u32, place: usize, common: usize) -> u32 {
        let child = self.nodes[parent as usize].children[place].1;
        let bytes = std::mem::take(&mut self.nodes[child as usize].bytes);
        let (shared, own) = bytes.split_at(common);
        self.nodes[child as usize].bytes = own.into();
        let between = self.nodes.insert(Node { bytes: shared.into(), children: vec![(own[0], child)], here: Vec::new() }) as u32;
        self.nodes[parent as usize].children[place].1 = between;
        between
    }

    pub(crate) fn remove(&mut self, head: &str, number: u32) {
        let (mut at, mut rest, mut path) = (self.root, head.as_bytes(), None);
        while let Some(&byte) = rest.first() {
            let Ok(place) = self.place(at, byte) else { return };
            path = Some((at, place));
            at = self.nodes[at as usize].children[place].1;
            let Some(after) = rest.strip_prefix(&*self.nodes[at as usize].bytes) else { return };
            rest = after;
        }
        let node = &mut self.nodes[at as usize];
        node.here.retain(|&other| other != number);
        let Some((parent, place)) = path.filter(|_| node.here.is_empty()) else { return };
        if node.children.is_empty() {
            self.nodes.remove(at as usize);
            let children = &mut self.nodes[parent as usize].children;
            children.remove(place);
            if children.len() * 4 < children.capacity() {
                children.shrink_to_fit();
            }
            self.join(parent);
        } else {
            self.join(at);
        }
    }

    /// A node at which nothing is found and nothing branches becomes one with its child.
    fn join(&mut self, at: u32) {
        let node = &self.nodes[at as usize];
        let [(_, child)] = node.children[..] else { return };
        if at == self.root || !node.here.is_empty() {
            return;
        }
        let child = self.nodes.remove(child as usize);
        let node = &mut self.nodes[at as usize];
        node.bytes = [&node.bytes[..], &child.bytes].concat().into();
        node.children = child.children;
        node.here = child.here;
    }

    /// Where the child that begins with a byte is among its siblings, or would be.
    fn place(&self, at: u32, byte: u8) -> Result<usize, usize> {
        self.nodes[at as usize].children.binary_search_by_key(&byte, |&(first, _)| first)
    }

    /// Visits what is found under any beginning of a name.
    pub(crate) fn visit(&self, name: &str, mut visit: impl FnMut(u32)) {
        let (mut at, mut rest) = (self.root, name.as_bytes());
        loop {
            let node = &self.nodes[at as usize];
            node.here.iter().copied().for_each(&mut visit);
            let Some(Ok(place)) = rest.first().map(|&byte| self.place(at, byte)) else { return };
            at = node.children[place].1;
            let Some(after) = rest.strip_prefix(&*self.nodes[at as usize].bytes) else { return };
            rest = after;
        }
    }
}

/// A node with one child, as most that have any, has no room for more.
fn insert_child(children: &mut Vec<(u8, u32)>, place: usize, child: (u8, u32)) {
    if children.is_empty() {
        children.reserve_exact(1);
    }
    children.insert(place, child);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against looking at each, whatever came and went; and when all are gone nothing is kept.
        #[test]
        fn like_a_list(steps in prop::collection::vec(("[ab]{0,6}", any::<bool>()), 0..40), names in prop::collection::vec("[ab]{0,8}", 8)) {
            let mut heads = Heads::new();
            let mut list: Vec<(String, u32)> = Vec::new();
            for (number, (head, removes)) in steps.into_iter().enumerate() {
                if removes && !list.is_empty() {
                    let (head, number) = list.remove(number % list.len());
                    heads.remove(&head, number);
                } else {
                    heads.insert(&head, number as u32);
                    list.push((head, number as u32));
                }
                for name in &names {
                    let mut found = Vec::new();
                    heads.visit(name, |number| found.push(number));
                    found.sort_unstable();
                    let mut expected: Vec<u32> = list.iter().filter(|(head, _)| name.starts_with(&**head)).map(|(_, number)| *number).collect();
                    expected.sort_unstable();
                    prop_assert_eq!(found, expected);
                }
                let needed: std::collections::BTreeSet<&str> = list.iter().map(|(head, _)| &**head).collect();
                prop_assert!(heads.nodes.len() <= 2 * needed.len() + 1, "{} nodes for {} heads", heads.nodes.len(), needed.len());
            }
            for (head, number) in list {
                heads.remove(&head, number);
            }
            prop_assert_eq!(heads.nodes.len(), 1);
        }
    }
}
