//! Pooling before ReLU: max and ReLU commute, and a window has one ReLU instead of as many as it has elements.
//!
//! max_i relu(x_i) = relu(max_i x_i). A ReLU that nobody but a maximum takes, itself or what is only arranged of it, changes
//! places with it: the operations between the two move up by one, and the last of them becomes the ReLU. Wires keep their
//! numbers, and every other operation its operands.

use alloc::vec;
use alloc::vec::Vec;

use crate::program::{Id, Node, Op, Program};

/// `program` with every ReLU behind the maximum that alone takes it; `None` if there is nothing to change.
pub(super) fn pool_first(program: &Program) -> Option<Program> {
    let mut nodes = program.nodes().to_vec();
    let mut takers: Vec<Vec<Id>> = vec![Vec::new(); nodes.len()];
    for (id, node) in (0..).zip(&nodes) {
        for operand in node.op.operands() {
            takers.get_mut(operand as usize)?.push(id);
        }
    }
    let mut changed = false;
    for relu in 0..nodes.len() as Id {
        if let Some(Op::Relu { x }) = nodes.get(relu as usize).map(|node| node.op.clone())
            && let Some(chain) = chain(&nodes, &takers, relu)
        {
            changed |= swap(&mut nodes, x, &chain).is_some();
        }
    }
    changed.then(|| Program::new(program.numbers(), nodes).ok()).flatten()
}

/// The ReLU, what is arranged of it, and the maximum at the end, if nobody else takes any of them.
fn chain(nodes: &[Node], takers: &[Vec<Id>], relu: Id) -> Option<Vec<Id>> {
    let mut chain = vec![relu];
    loop {
        let [next] = takers.get(*chain.last()? as usize)?.as_slice() else { return None };
        chain.push(*next);
        match nodes.get(*next as usize)?.op {
            Op::Arrange { .. } => {}
            Op::Max { .. } => return Some(chain),
            _ => return None,
        }
    }
}

/// Gives each wire of `chain` the operation of the next one, and the last the ReLU of `x`'s maximum.
fn swap(nodes: &mut [Node], x: Id, chain: &[Id]) -> Option<()> {
    let bound = nodes.get(x as usize)?.bound;
    let old: Option<Vec<Node>> = chain.iter().map(|id| nodes.get(*id as usize).cloned()).collect();
    let (old, mut before) = (old?, x);
    for (id, next) in chain.iter().zip(old.iter().skip(1)) {
        let op = match &next.op {
            Op::Arrange { how, .. } => Op::Arrange { x: before, how: how.clone() },
            _ => Op::Max { x: before },
        };
        // What is smaller than zero may be larger than any positive part.
        let moved = Node { bound, ..Node::infer(op, &[], nodes.get(..*id as usize)?).ok()? };
        *nodes.get_mut(*id as usize)? = moved;
        before = *id;
    }
    let (last, node) = (chain.last()?, old.last()?);
    let positive = Node::infer(Op::Relu { x: before }, &[], nodes.get(..*last as usize)?).ok()?;
    *nodes.get_mut(*last as usize)? = Node { bound: node.bound, ..positive };
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test may panic")]
    use super::*;
    use crate::graph::{Bounds, Graph, Pooling};
    use crate::program::Numbers;

    fn ops(program: &Program) -> Vec<&'static str> {
        program.nodes().iter().map(|node| node.op.name()).collect()
    }

    #[test]
    fn a_relu_changes_places_with_the_pooling_behind_it() {
        let graph = Graph::new();
        let x = graph.private_input("client", "x", &[1, 4, 4], [-5.0, 1.0]).unwrap();
        let pooled = x.relu().unwrap().max_pool2d(Pooling::of([2, 2])).unwrap();
        graph.output("client", &pooled).unwrap();
        let program = graph.compile(Numbers::default(), Bounds::Declared(4)).unwrap();
        let swapped = pool_first(&program).unwrap();
        let (before, after) = (ops(&program), ops(&swapped));
        assert_eq!(before.len(), after.len());
        let place = |ops: &[&str], name| ops.iter().position(|op| *op == name).unwrap();
        assert!(place(&before, "relu") < place(&before, "reduce_max"));
        assert!(place(&after, "relu") > place(&after, "reduce_max"));
        assert!(pool_first(&swapped).is_none(), "once is enough");
    }

    /// Somebody else takes the ReLU, or what is arranged of it.
    #[test]
    fn what_others_take_stays() {
        for arranged in [false, true] {
            let graph = Graph::new();
            let x = graph.private_input("client", "x", &[2, 3], [-1.0, 1.0]).unwrap();
            let x = x.relu().unwrap();
            let turned = x.transpose(&[1, 0]).unwrap();
            graph.output("client", &turned.reduce_max(0).unwrap()).unwrap();
            graph.output("client", if arranged { &turned } else { &x }).unwrap();
            let program = graph.compile(Numbers::default(), Bounds::Declared(4)).unwrap();
            assert!(pool_first(&program).is_none());
        }
    }
}
