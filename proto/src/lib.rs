//! Twill's wire contracts: gRPC for the command line, prost messages for the CNI plugin.
