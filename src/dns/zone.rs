use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record, RecordType};
use std::sync::Arc;
#[derive(Default)]
pub struct Zones;
pub struct Zone;
pub struct Lookup {
    pub rcode: ResponseCode,
    pub authoritative: bool,
    pub answer: Vec<Record>,
    pub authority: Vec<Record>,
    pub additional: Vec<Record>,
}
impl Zones {
    pub fn find(&self, _: &Name) -> Option<&Arc<Zone>> {
        None
    }
}
impl Zone {
    pub fn lookup(&self, _: &Name, _: RecordType) -> Lookup {
        unreachable!()
    }
}
