//! Durable typed tables with transactions and watches.
