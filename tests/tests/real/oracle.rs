//! What the kernel bridge does with a frame, the switch does.
