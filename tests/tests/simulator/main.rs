//! Scenarios on the simulator. Each asserts its exact outcome, and which counters moved.

mod learning;
mod talking;
