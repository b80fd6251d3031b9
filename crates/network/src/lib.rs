//! VPCs, subnets, interfaces, security groups and name service on Linux.
