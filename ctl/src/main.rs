//! The command.

fn main() {
    if std::env::args().nth(1).as_deref() == Some(portolan::namespace::wire::STEP_COMMAND) {
        portolan::namespace::wire::step_main();
    }
}
