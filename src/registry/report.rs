//! What callers and gateways report of their requests, on its way to the writer, which has the [circuits](super::breaker).

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::Registry;
use super::breaker::{Counts, Reporter};
use super::command::Refused;
use super::shown::Begun;
use crate::acl::ANONYMOUS;
use crate::model::{InstanceId, NodeName, ServiceName};
use crate::pace::household;
use crate::telemetry::origin::{self, Origin};

/// How requests to one instance ended.
#[derive(Debug, Clone)]
pub struct Report {
    pub service: ServiceName,
    pub node: NodeName,
    pub id: InstanceId,
    pub counts: Counts,
}

/// Where the positions go of reports that are about nobody.
pub(super) type Answer = oneshot::Sender<Result<Vec<usize>, Refused>>;

/// Reports that came together, and where the positions go of those that are about nobody.
pub(super) struct Reports {
    pub(super) reports: Vec<Report>,
    pub(super) origin: Option<Arc<Origin>>,
    pub(super) begun: Begun,
    pub(super) reply: Answer,
}

impl Reports {
    /// Whose they are: seen of the request, and not told by it.
    pub(super) fn reporter(&self) -> Reporter {
        let origin = self.origin.as_deref();
        let address = |origin: &Origin| Some(household(origin.client?.ip()));
        Reporter {
            who: origin.and_then(Origin::who).filter(|accessor| *accessor != ANONYMOUS),
            client: origin.and_then(address).filter(|address: &IpAddr| !address.is_unspecified()),
        }
    }
}

impl Registry {
    /// Counts what was reported; whoever reports may write the services. Gives the positions of reports on instances that are not
    /// there. Errs when too much is remembered already: then nothing was counted.
    pub async fn report(&self, reports: Vec<Report>) -> Result<Vec<usize>, Refused> {
        let origin = origin::current();
        let begun = Begun::of_request(origin.as_ref().map(|origin| origin.arrived));
        let (reply, outcome) = oneshot::channel();
        let ended = || Refused::Unavailable("the server is stopping or restarting; try again".into());
        match self.shared.reports.try_send(Reports { reports, origin, begun, reply }) {
            Ok(()) => outcome.await.unwrap_or_else(|_| Err(ended())),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(ended()),
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.shared.count_limit("queue_max");
                Err(Refused::Busy { max: self.shared.reports.max_capacity() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::origin::RequestId;

    #[test]
    fn a_network_of_one_holder_is_one_reporter() {
        let from = |address: &str| {
            let mut origin = Origin::new(RequestId::new(7));
            origin.client = Some((address.parse::<IpAddr>().unwrap(), 1).into());
            let (reply, _) = oneshot::channel();
            let begun = Begun::of_request(None);
            Reports { reports: Vec::new(), origin: Some(Arc::new(origin)), begun, reply }.reporter()
        };
        assert_eq!(from("2001:db8::1"), from("2001:db8::ffff"));
        assert_ne!(from("2001:db8::1"), from("2001:db8:0:1::1"));
        assert_eq!(from("::ffff:192.0.2.1"), from("192.0.2.1"));
        assert_ne!(from("192.0.2.1"), from("192.0.2.2"));
        assert_eq!(from("::").client, None);
    }
}
