//! Names as real resolvers ask for them, and an /etc that stays ours.
