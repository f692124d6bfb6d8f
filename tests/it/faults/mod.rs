//! What depends on others goes on when they fail: workers wait, say why, and lose nothing.

pub mod load;
mod rabbitmq;
mod servers;
