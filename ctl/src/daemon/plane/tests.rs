//! The neck with a real dataplane behind it.

use portolan_switch::command::{Carriage, Egress, NetworkSpec, ServiceSpec};
use portolan_switch::ids::{MacAddr, NetworkId, NodeId};

use super::*;

fn network(id: NetworkId) -> Command {
    Command::CreateNetwork(NetworkSpec {
        id,
        zone: None,
        mac: MacAddr::default(),
        gateways: Vec::new(),
        mtu: 1500,
        guard: true,
        egress: Egress::default(),
        carriage: Carriage::default(),
        services: ServiceSpec::default(),
    })
}

#[tokio::test]
async fn a_change_too_large_for_one_group_takes_effect_in_several() {
    let (plane, mut news) = Plane::start(1, Features::probe(), Uplink::None).unwrap();
    let size = u32::try_from(STAGED_MAX).unwrap();
    let views = (0..2 * size).map(|n| Command::SetView { node: NodeId(n), networks: Vec::new() });
    let commands = views.chain([network(NetworkId(3))]).collect();
    plane.change(Opening::default(), commands).await;
    let answer = plane.ask(Query::Counters(NetworkId(3))).await;
    assert!(matches!(answer, Some(Answer::Counters { .. })), "{answer:?}");
    for group in 1..=3 {
        let event = news.recv().await;
        assert!(matches!(event, Some(News::Event(Event::Committed(n))) if n == group), "{event:?}");
    }
    // One that just fits is one.
    let views = (0..size).map(|n| Command::SetView { node: NodeId(n), networks: Vec::new() });
    plane.change(Opening::default(), views.collect()).await;
    let answer = plane.ask(Query::Counters(NetworkId(3))).await;
    assert!(matches!(answer, Some(Answer::Counters { .. })), "{answer:?}");
    let event = news.recv().await;
    assert!(matches!(event, Some(News::Event(Event::Committed(4)))), "{event:?}");
    assert!(news.try_recv().is_err());
}
