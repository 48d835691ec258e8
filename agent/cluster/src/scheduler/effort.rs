//! How many rows a pass looks at: counted in tests, so that what a placement costs is held without a clock.

#[cfg(test)]
use std::cell::Cell;

#[cfg(test)]
thread_local! {
    static LOOKS: Cell<usize> = const { Cell::new(0) };
}

/// A row is looked at, to choose it or to pass it over.
pub(super) fn look() {
    #[cfg(test)]
    LOOKS.with(|looks| looks.set(looks.get() + 1));
}

#[cfg(test)]
mod tests {
    use super::LOOKS;
    use crate::fixture::{self, at};
    use crate::id::{NodeId, TaskId};
    use crate::objects::{Node, Service, Task, TaskState, Version};
    use crate::scheduler::Scheduler;
    use crate::scheduler::clusters::spread_out;
    use crate::store::{Object, Store, StoreAction};
    use crate::view::{Observed, View};

    const ZONES: u64 = 5;
    const RACKS: u64 = 4;

    struct Cluster {
        store: Store,
        scheduler: Scheduler,
        service: Service,
        slots: u64,
    }

    impl Cluster {
        /// Of so many nodes, and a service that is spread over zones and racks.
        fn new(nodes: u64) -> Self {
            let labelled = |number: u64| {
                let mut node = Node { id: NodeId::of(spread_out(number.into())), ..fixture::node(0) };
                node.spec.labels.insert("zone".to_owned(), (number % ZONES).to_string());
                node.spec.labels.insert("rack".to_owned(), (number / ZONES % RACKS).to_string());
                Object::from(node)
            };
            let mut service = fixture::replicated(1, 1);
            let spec = std::sync::Arc::make_mut(&mut service.spec.task);
            spec.placement.spread = ["node.labels.zone", "node.labels.rack"].map(str::to_owned).into();
            let store = fixture::store((1..=nodes).map(labelled));
            Self { store, scheduler: Scheduler::default(), service, slots: 0 }
        }

        /// Gives the service so many tasks more; how many rows were looked at to place them.
        fn place(&mut self, count: u64) -> usize {
            let slots = self.slots + 1..=self.slots + count;
            self.slots += count;
            let tasks: Vec<StoreAction> =
                slots.map(|slot| StoreAction::Create(self.task(slot).into())).collect();
            self.commit(&tasks);
            LOOKS.with(|looks| looks.set(0));
            let observed = Observed::default();
            let wanted = self.scheduler.schedule(&View::new(&self.store, &observed), at(1000));
            assert_eq!(wanted.actions.len() as u64, count, "all of them are placed");
            self.commit(&wanted.actions);
            LOOKS.with(std::cell::Cell::get)
        }

        fn task(&self, slot: u64) -> Task {
            let mut task = fixture::task(0, &self.service, slot);
            task.id = TaskId::of(spread_out(u128::from(slot) << 32));
            task.status.state = TaskState::Pending;
            task
        }

        fn commit(&mut self, actions: &[StoreAction]) {
            let next = Version(self.store.version().0 + 1);
            let changes = self.store.apply(next, actions).unwrap();
            self.scheduler.committed(&changes);
        }
    }

    #[test]
    fn a_few_tasks_of_a_large_service_cost_no_look_at_those_that_it_has() {
        for nodes in [100, 400, 1600] {
            let mut cluster = Cluster::new(nodes);
            let filled = cluster.place(nodes / 2);
            let most = usize::try_from(nodes / 2 + 2 * ZONES * RACKS).unwrap();
            assert!(filled <= most, "{filled} looks to fill {nodes} nodes");
            for _ in 0..3 {
                let more = cluster.place(4);
                assert!(more <= 32, "{more} looks for four tasks on {nodes} nodes");
            }
        }
    }

    #[test]
    fn one_task_for_each_node_is_one_look_for_each() {
        let mut cluster = Cluster::new(400);
        let looks = cluster.place(400) + cluster.place(400);
        assert!(looks <= 3 * 800, "{looks} looks for two tasks on each of 400 nodes");
    }
}
