//! What one pass through the core may touch.

use portolan_nat::sockets::host::Host;
use rand::Rng;

use crate::frame::FrameTable;
use crate::outbox::Outbox;

/// All that a call into the data neck is lent: the frames, where to put what is to be sent, the
/// host's sockets, and a source of randomness.
/// Whatever the core does, it does to these and to its own tables.
pub struct Turn<'t, 'f> {
    /// The batch, and room for the frames that answer it.
    pub frames: &'t mut FrameTable<'f>,
    /// What is to be sent when the turn ends.
    pub outbox: &'t mut Outbox,
    /// The host's sockets.
    pub host: &'t mut dyn Host,
    /// Seeded by the caller, so that a seed replays a run.
    pub random: &'t mut dyn Rng,
}
