//! The desktop bridge of the Agent Client Protocol.
