//! Many templates as one trie, whose edges are bytes and expressions: a name is led through all of them at once, and what they have in common
//! is gone through once. What it costs depends on the templates that match, and on those that nearly do.
//!
//! It knows templates and numbers; what the numbers stand for is the routes'.

use super::{
    Expression, Template,
    run::{self, Positions, Run},
};
use slab::Slab;
use std::cell::RefCell;

/// Numbers by template. Templates that differ in the names of their variables only are one here.
#[derive(Debug)]
pub(crate) struct Templates {
    nodes: Slab<Node>,
    root: u32,
    /// Where a name is led next, kept so that it is not made anew for each.
    ahead: RefCell<Ahead>,
}

/// A stretch of bytes that all below it have in common, behind the edge that leads to it.
#[derive(Debug)]
struct Node {
    /// With that of the edge, if it is a byte; empty at the root.
    bytes: Box<[u8]>,
    /// Ascending.
    children: Vec<(Edge, u32)>,
    /// Templates that end here.
    here: Vec<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Edge {
    Byte(u8),
    Expression(Expression),
}

/// Nodes that can be reached, and the positions of the name in front of the bytes of each: so many words for each node.
#[derive(Default, Debug)]
struct Ahead {
    nodes: Vec<u32>,
    positions: Vec<u64>,
}

impl Ahead {
    /// What is kept after a name for which many templates were tried.
    const KEPT: usize = 4_096;

    fn push<const WORDS: usize>(&mut self, node: u32, positions: &Positions<WORDS>) {
        self.nodes.push(node);
        self.positions.extend_from_slice(positions);
    }

    fn pop<const WORDS: usize>(&mut self) -> Option<(u32, Positions<WORDS>)> {
        let positions = *self.positions.last_chunk()?;
        self.positions.truncate(self.positions.len() - WORDS);
        Some((self.nodes.pop()?, positions))
    }
}

impl Templates {
    pub(crate) fn new() -> Templates {
        let mut nodes = Slab::new();
        let root = nodes.insert(Node { bytes: [].into(), children: Vec::new(), here: Vec::new() }) as u32;
        Templates { nodes, root, ahead: RefCell::default() }
    }

    pub(crate) fn insert(&mut self, template: &Template, number: u32) {
        let mut at = self.root;
        for (expression, mut bytes) in template.parts() {
            let mut edge = expression.map(Edge::Expression);
            while let Some(next) = edge.take().or_else(|| bytes.first().copied().map(Edge::Byte)) {
                (at, bytes) = match self.place(at, next) {
                    Ok(place) => {
                        let child = self.nodes[at as usize].children[place].1;
                        let shared = &self.nodes[child as usize].bytes;
                        let common = shared.iter().zip(bytes).take_while(|(one, other)| one == other).count();
                        if common < shared.len() {
                            self.split(child, common);
                        }
                        (child, &bytes[common..])
                    }
                    Err(place) => {
                        let leaf = Node { bytes: bytes.into(), children: Vec::new(), here: Vec::new() };
                        let leaf = self.nodes.insert(leaf) as u32;
                        insert_exact(&mut self.nodes[at as usize].children, place, (next, leaf));
                        (leaf, &[][..])
                    }
                };
            }
        }
        let here = &mut self.nodes[at as usize].here;
        insert_exact(here, here.len(), number);
    }

    /// Leaves so many bytes to a node, and the others with all that comes behind to a new one below.
    fn split(&mut self, at: u32, common: usize) {
        let node = &mut self.nodes[at as usize];
        let (shared, own) = node.bytes.split_at(common);
        let (shared, own): (Box<[u8]>, Box<[u8]>) = (shared.into(), own.into());
        let (edge, children, here) = (Edge::Byte(own[0]), std::mem::take(&mut node.children), std::mem::take(&mut node.here));
        node.bytes = shared;
        let below = self.nodes.insert(Node { bytes: own, children, here }) as u32;
        insert_exact(&mut self.nodes[at as usize].children, 0, (edge, below));
    }

    pub(crate) fn remove(&mut self, template: &Template, number: u32) {
        let (mut at, mut path) = (self.root, Vec::new());
        for (expression, mut bytes) in template.parts() {
            let mut edge = expression.map(Edge::Expression);
            while let Some(next) = edge.take().or_else(|| bytes.first().copied().map(Edge::Byte)) {
                let Ok(place) = self.place(at, next) else { return };
                path.push((at, place));
                at = self.nodes[at as usize].children[place].1;
                let Some(after) = bytes.strip_prefix(&*self.nodes[at as usize].bytes) else { return };
                bytes = after;
            }
        }
        self.nodes[at as usize].here.retain(|&other| other != number);
        while let Some((parent, place)) = path.pop() {
            let node = &self.nodes[at as usize];
            if !node.here.is_empty() || !node.children.is_empty() {
                break;
            }
            self.nodes.remove(at as usize);
            let children = &mut self.nodes[parent as usize].children;
            children.remove(place);
            if children.len() * 4 < children.capacity() {
                children.shrink_to_fit();
            }
            at = parent;
        }
        self.join(at);
    }

    /// A node at which nothing ends and nothing branches becomes one with its child, unless an expression lies between.
    fn join(&mut self, at: u32) {
        let node = &self.nodes[at as usize];
        let [(Edge::Byte(_), child)] = node.children[..] else { return };
        if at == self.root || !node.here.is_empty() {
            return;
        }
        let child = self.nodes.remove(child as usize);
        let node = &mut self.nodes[at as usize];
        node.bytes = [&node.bytes[..], &child.bytes].concat().into();
        (node.children, node.here) = (child.children, child.here);
    }

    /// Where the child behind an edge is among its siblings, or would be.
    fn place(&self, at: u32, edge: Edge) -> Result<usize, usize> {
        self.nodes[at as usize].children.binary_search_by_key(&edge, |&(edge, _)| edge)
    }

    /// Visits the numbers of all templates that a name is an expansion of. A template's own text, which has braces, is none.
    pub(crate) fn visit(&self, name: &str, visit: impl FnMut(u32)) {
        match name.len() {
            0..64 => self.visit_in::<1>(name.as_bytes(), visit),
            64..256 => self.visit_in::<4>(name.as_bytes(), visit),
            256..run::LONGEST => self.visit_in::<{ run::LONGEST / 64 }>(name.as_bytes(), visit),
            _ => {}
        }
    }

    /// Each node is come to at most once: by one edge, with all the positions from which its bytes may follow.
    fn visit_in<const WORDS: usize>(&self, name: &[u8], mut visit: impl FnMut(u32)) {
        let mut run = Run::<WORDS>::new(name);
        let mut ahead = self.ahead.take();
        ahead.push(self.root, &Run::<WORDS>::START);
        while let Some((at, positions)) = ahead.pop::<WORDS>() {
            #[cfg(test)]
            LED.with(|led| led.set(led.get() + 1));
            let node = &self.nodes[at as usize];
            let reached = run.literal(&node.bytes, &positions);
            if run::is_empty(&reached) {
                continue;
            }
            if run.is_whole(&reached) {
                node.here.iter().copied().for_each(&mut visit);
            }
            if node.children.is_empty() {
                continue;
            }
            run.next_bytes(&reached, |byte| {
                if let Ok(place) = self.place(at, Edge::Byte(byte)) {
                    ahead.push(node.children[place].1, &reached);
                }
            });
            for &(edge, child) in node.children.iter().rev() {
                let Edge::Expression(expression) = edge else { break };
                ahead.push(child, &run.expression(expression, &reached));
            }
        }
        if ahead.positions.capacity() <= Ahead::KEPT {
            *self.ahead.borrow_mut() = ahead;
        }
    }
}

/// Most nodes have one child, and most templates end alone: no room for more.
fn insert_exact<T>(items: &mut Vec<T>, place: usize, item: T) {
    if items.is_empty() {
        items.reserve_exact(1);
    }
    items.insert(place, item);
}

#[cfg(test)]
thread_local! {
    /// To how many nodes names were led.
    static LED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Short, of few characters and in few shapes, so that they have much in common.
    fn selector() -> impl Strategy<Value = String> {
        let expression = prop::sample::select(vec![
            "{a}", "{b}", "{+a}", "{#a}", "{.a}", "{/a}", "{/a,b}", "{/a*}", "{;a,b}", "{?a}", "{?a,b,c}", "{&a*}",
        ]);
        let literal = "[ab/]{0,4}|a{9,12}|%41|4|1|=|é";
        (literal, prop::collection::vec((expression, literal), 1..5))
            .prop_map(|(head, parts)| parts.iter().fold(head, |text, (expression, literal)| text + expression + literal))
    }

    fn name() -> impl Strategy<Value = String> {
        let piece = "[ab/]{0,5}|a{9,30}|%41|%4|[=?&;#.,é4]";
        prop_oneof![8 => prop::collection::vec(piece, 0..5), 1 => prop::collection::vec(piece, 20..40), 1 => prop::collection::vec(piece, 60..150)]
            .prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// M-218: exactly those that match when each is asked alone, whatever came and went; and when all are gone nothing is kept.
        #[test]
        fn like_each_alone(steps in prop::collection::vec((selector(), 0u8..4), 1..30), names in prop::collection::vec(name(), 6)) {
            let mut index = Templates::new();
            let mut list: Vec<(Template, u32)> = Vec::new();
            for (number, (selector, dice)) in steps.into_iter().enumerate() {
                if dice == 0 && !list.is_empty() {
                    let (template, number) = list.remove(number % list.len());
                    index.remove(&template, number);
                } else {
                    let template = Template::parse(&selector).unwrap();
                    index.insert(&template, number as u32);
                    list.push((template, number as u32));
                }
            }
            for name in &names {
                let mut found = Vec::new();
                index.visit(name, |number| found.push(number));
                found.sort_unstable();
                let expected: Vec<u32> = list.iter().filter(|(template, _)| template.matches(name)).map(|(_, number)| *number).collect();
                prop_assert_eq!(found, expected, "{:?}", name);
            }
            for (template, number) in list {
                index.remove(&template, number);
            }
            prop_assert_eq!(index.nodes.len(), 1);
        }

        /// At most as many nodes as there are parts of templates, twice: at each part's end, and where two of them part.
        #[test]
        fn nodes_are_few(selectors in prop::collection::btree_set(selector(), 1..30)) {
            let templates: Vec<Template> = selectors.iter().map(|selector| Template::parse(selector).unwrap()).collect();
            let mut index = Templates::new();
            for (number, template) in templates.iter().enumerate() {
                index.insert(template, number as u32);
            }
            let parts: usize = templates.iter().map(|template| template.parts().len()).sum();
            prop_assert!(index.nodes.len() <= 2 * parts + 1, "{} nodes for {parts} parts", index.nodes.len());
        }
    }

    /// What differs behind an expression is told apart without asking each: the nodes that a name is led to are few.
    #[test]
    fn most_are_never_asked() {
        for shape in ["/users/{id}/orders/N", "/{kind}/N/{id}", "/{+path}/N", "/{a}/{b}/N{?page}", "{/a*}/N", "/u/{id}.N{#x}"] {
            let mut index = Templates::new();
            for number in 0..10_000 {
                index.insert(&Template::parse(&shape.replace('N', &number.to_string())).unwrap(), number);
            }
            let name = shape.replace("{id}", "7").replace("{kind}", "k").replace("{+path}", "a/b").replace("{a}", "a").replace("{b}", "b");
            let name = name.replace("{?page}", "?page=2").replace("{#x}", "#y").replace("{/a*}", "/a/b").replace('N', "1234");
            let (mut found, before) = (Vec::new(), LED.get());
            index.visit(&name, |number| found.push(number));
            assert_eq!(found, [1234], "{shape}");
            let led = LED.get() - before;
            assert!(led < 100, "{shape}: {led} nodes");
        }
    }
}
