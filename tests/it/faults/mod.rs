//! What depends on others goes on when they fail: workers wait, say why, and lose nothing.

mod servers;
