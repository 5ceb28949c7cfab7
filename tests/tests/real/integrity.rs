//! Bytes arrive as they were sent, with the offloads of the guests on and off.
