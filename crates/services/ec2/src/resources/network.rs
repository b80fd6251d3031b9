//! VPCs, and what leads out of them.

use super::{EC2, one, retag, tag_specifications};
use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, text};
use serde_json::{Value as Json, json};

pub(super) struct Vpc;

impl Vpc {
    async fn names(request: &Request, id: &str, properties: &Properties) -> Result<(), Failure> {
        for name in ["EnableDnsSupport", "EnableDnsHostnames"] {
            if let Some(value) = properties.get(name) {
                let ask = json!({"VpcId": id, name: {"Value": value}});
                request.call(EC2, "ModifyVpcAttribute", ask).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl ResourceType for Vpc {
    fn name(&self) -> &'static str {
        "AWS::EC2::VPC"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        let names = properties.only(&["EnableDnsSupport", "EnableDnsHostnames"]);
        properties.take("EnableDnsSupport");
        properties.take("EnableDnsHostnames");
        tag_specifications(&mut properties, "vpc");
        let answer = request.call(EC2, "CreateVpc", properties.request()).await?;
        let id = text(&answer["Vpc"]["VpcId"]);
        Self::names(request, &id, &names).await?;
        Ok(id)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let Some(vpc) = one(request, "DescribeVpcs", json!({"VpcIds": [id]}), "Vpcs").await? else {
            return Ok(State::Missing);
        };
        let filters = json!({"Filters": [
            {"Name": "vpc-id", "Values": [id]}, {"Name": "group-name", "Values": ["default"]},
        ]});
        let group = one(request, "DescribeSecurityGroups", filters, "SecurityGroups").await?;
        Ok(State::ready(json!({
            "VpcId": id,
            "CidrBlock": vpc["CidrBlock"],
            "CidrBlockAssociations": [vpc["CidrBlockAssociationSet"][0]["AssociationId"]],
            "DefaultSecurityGroup": group.map(|group| group["GroupId"].clone()),
            "Ipv6CidrBlocks": [],
        })))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        if new.differ(old, &["InstanceTenancy"]) {
            return Err(Failure::not_updatable("InstanceTenancy"));
        }
        retag(request, id, old, &new).await?;
        Self::names(request, id, &new).await
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove(EC2, "DeleteVpc", json!({"VpcId": id})).await
    }
}

pub(super) struct Subnet;

impl Subnet {
    async fn map(request: &Request, id: &str, properties: &Properties) -> Result<(), Failure> {
        let ask = json!({"SubnetId": id, "MapPublicIpOnLaunch": {"Value": properties.on("MapPublicIpOnLaunch")}});
        request.call(EC2, "ModifySubnetAttribute", ask).await.map(|_| ())
    }
}

#[async_trait]
impl ResourceType for Subnet {
    fn name(&self) -> &'static str {
        "AWS::EC2::Subnet"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        let map = properties.only(&["MapPublicIpOnLaunch"]);
        properties.take("MapPublicIpOnLaunch");
        tag_specifications(&mut properties, "subnet");
        let answer = request.call(EC2, "CreateSubnet", properties.request()).await?;
        let id = text(&answer["Subnet"]["SubnetId"]);
        if map.on("MapPublicIpOnLaunch") {
            Self::map(request, &id, &map).await?;
        }
        Ok(id)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let found = one(request, "DescribeSubnets", json!({"SubnetIds": [id]}), "Subnets").await?;
        Ok(found.map_or(State::Missing, |subnet| {
            State::ready(json!({
                "SubnetId": id,
                "AvailabilityZone": subnet["AvailabilityZone"],
                "AvailabilityZoneId": subnet["AvailabilityZoneId"],
                "CidrBlock": subnet["CidrBlock"],
                "VpcId": subnet["VpcId"],
                "Ipv6CidrBlocks": [],
            }))
        }))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        retag(request, id, old, &new).await?;
        if new.differ(old, &["MapPublicIpOnLaunch"]) {
            Self::map(request, id, &new).await?;
        }
        let known = ["Tags", "MapPublicIpOnLaunch"];
        let other = new
            .0
            .keys()
            .chain(old.0.keys())
            .find(|name| !known.contains(&name.as_str()) && new.get(name) != old.get(name));
        other.map_or(Ok(()), |name| Err(Failure::not_updatable(name)))
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove(EC2, "DeleteSubnet", json!({"SubnetId": id})).await
    }
}

pub(super) struct Gateway;

#[async_trait]
impl ResourceType for Gateway {
    fn name(&self) -> &'static str {
        "AWS::EC2::InternetGateway"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        tag_specifications(&mut properties, "internet-gateway");
        let answer = request.call(EC2, "CreateInternetGateway", properties.request()).await?;
        Ok(text(&answer["InternetGateway"]["InternetGatewayId"]))
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let ask = json!({"InternetGatewayIds": [id]});
        let found = one(request, "DescribeInternetGateways", ask, "InternetGateways").await?;
        Ok(found.map_or(State::Missing, |_| State::ready(json!({"InternetGatewayId": id}))))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        retag(request, id, old, &new).await
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove(EC2, "DeleteInternetGateway", json!({"InternetGatewayId": id})).await
    }
}

pub(super) struct Attachment;

#[async_trait]
impl ResourceType for Attachment {
    fn name(&self) -> &'static str {
        "AWS::EC2::VPCGatewayAttachment"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        let vpc = properties.text("VpcId").unwrap_or_default();
        match request.call(EC2, "AttachInternetGateway", properties.request()).await {
            Err(failure) if failure.fault == "Resource.AlreadyAssociated" && request.repeated => {}
            result => {
                result?;
            }
        }
        Ok(format!("IGW|{vpc}"))
    }

    async fn read(
        &self,
        request: &Request,
        _: &str,
        properties: &Properties,
    ) -> Result<State, Failure> {
        let ask = json!({"InternetGatewayIds": [properties.get("InternetGatewayId")]});
        let found = one(request, "DescribeInternetGateways", ask, "InternetGateways").await?;
        let vpc = properties.get("VpcId").cloned().unwrap_or_default();
        Ok(match found.is_some_and(|gateway| gateway["Attachments"][0]["VpcId"] == vpc) {
            true => State::ready(json!({"AttachmentType": "IGW"})),
            false => State::Missing,
        })
    }

    async fn update(
        &self,
        request: &Request,
        _: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        request.remove(EC2, "DetachInternetGateway", old.clone().request()).await?;
        request.call(EC2, "AttachInternetGateway", new.request()).await.map(|_| ())
    }

    async fn delete(
        &self,
        request: &Request,
        _: &str,
        properties: &Properties,
    ) -> Result<(), Failure> {
        match request.remove(EC2, "DetachInternetGateway", properties.clone().request()).await {
            Err(failure) if failure.fault == "Gateway.NotAttached" => Ok(()),
            result => result,
        }
    }
}

pub(super) struct RouteTable;

#[async_trait]
impl ResourceType for RouteTable {
    fn name(&self) -> &'static str {
        "AWS::EC2::RouteTable"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        tag_specifications(&mut properties, "route-table");
        let answer = request.call(EC2, "CreateRouteTable", properties.request()).await?;
        Ok(text(&answer["RouteTable"]["RouteTableId"]))
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let ask = json!({"RouteTableIds": [id]});
        let found = one(request, "DescribeRouteTables", ask, "RouteTables").await?;
        Ok(found.map_or(State::Missing, |_| State::ready(json!({"RouteTableId": id}))))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        retag(request, id, old, &new).await
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove(EC2, "DeleteRouteTable", json!({"RouteTableId": id})).await
    }
}

pub(super) struct Route;

#[async_trait]
impl ResourceType for Route {
    fn name(&self) -> &'static str {
        "AWS::EC2::Route"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        let id = ["RouteTableId", "DestinationCidrBlock"]
            .map(|name| properties.text(name).unwrap_or_default());
        request.call(EC2, "CreateRoute", properties.request()).await?;
        Ok(id.join("|"))
    }

    async fn read(
        &self,
        request: &Request,
        _: &str,
        properties: &Properties,
    ) -> Result<State, Failure> {
        let ask = json!({"RouteTableIds": [properties.get("RouteTableId")]});
        let found = one(request, "DescribeRouteTables", ask, "RouteTables").await?;
        let block = properties.get("DestinationCidrBlock").cloned().unwrap_or_default();
        let routes = found.map(|table| table["Routes"].clone()).unwrap_or_default();
        let there = routes.as_array().is_some_and(|routes| {
            routes.iter().any(|route| route["DestinationCidrBlock"] == block)
        });
        Ok(if there { State::ready(json!({"CidrBlock": block})) } else { State::Missing })
    }

    async fn update(
        &self,
        request: &Request,
        _: &str,
        _: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        request.call(EC2, "ReplaceRoute", new.request()).await.map(|_| ())
    }

    async fn delete(
        &self,
        request: &Request,
        _: &str,
        properties: &Properties,
    ) -> Result<(), Failure> {
        let ask = properties.only(&["RouteTableId", "DestinationCidrBlock"]);
        request.remove(EC2, "DeleteRoute", ask.request()).await
    }
}

pub(super) struct Association;

#[async_trait]
impl ResourceType for Association {
    fn name(&self) -> &'static str {
        "AWS::EC2::SubnetRouteTableAssociation"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        let (subnet, table) =
            (properties.get("SubnetId").cloned(), properties.get("RouteTableId").cloned());
        match request.call(EC2, "AssociateRouteTable", properties.request()).await {
            // The association that this one replaces is still there.
            Err(failure) if failure.fault == "Resource.AlreadyAssociated" => {
                let filters =
                    json!({"Filters": [{"Name": "association.subnet-id", "Values": [subnet]}]});
                let found = one(request, "DescribeRouteTables", filters, "RouteTables").await?;
                let all = found.map(|table| table["Associations"].clone()).unwrap_or_default();
                let own = all.as_array().into_iter().flatten();
                let own =
                    own.into_iter().find(|one| one["SubnetId"] == json!(subnet)).ok_or(failure)?;
                let ask =
                    json!({"AssociationId": own["RouteTableAssociationId"], "RouteTableId": table});
                let answer = request.call(EC2, "ReplaceRouteTableAssociation", ask).await?;
                Ok(text(&answer["NewAssociationId"]))
            }
            result => Ok(text(&result?["AssociationId"])),
        }
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let filters = json!({"Filters": [
            {"Name": "association.route-table-association-id", "Values": [id]},
        ]});
        let found = one(request, "DescribeRouteTables", filters, "RouteTables").await?;
        Ok(found.map_or(State::Missing, |_| State::ready(json!({"Id": id}))))
    }

    async fn update(
        &self,
        _: &Request,
        _: &str,
        _: &Properties,
        _: Properties,
    ) -> Result<(), Failure> {
        // All of it replaces it.
        Err(Failure::not_updatable("RouteTableId"))
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove(EC2, "DisassociateRouteTable", json!({"AssociationId": id})).await
    }
}

/// `Ref` gives the address, and the operations want the allocation.
pub(super) struct Eip;

impl Eip {
    async fn find(request: &Request, address: &str) -> Result<Option<Json>, Failure> {
        one(request, "DescribeAddresses", json!({"PublicIps": [address]}), "Addresses").await
    }
}

#[async_trait]
impl ResourceType for Eip {
    fn name(&self) -> &'static str {
        "AWS::EC2::EIP"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        tag_specifications(&mut properties, "elastic-ip");
        let answer = request.call(EC2, "AllocateAddress", properties.request()).await?;
        Ok(text(&answer["PublicIp"]))
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        Ok(Self::find(request, id).await?.map_or(State::Missing, |address| {
            State::ready(json!({"AllocationId": address["AllocationId"], "PublicIp": id}))
        }))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        let address = Self::find(request, id).await?.unwrap_or_default();
        retag(request, &text(&address["AllocationId"]), old, &new).await
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        let Some(address) = Self::find(request, id).await? else { return Ok(()) };
        request
            .remove(EC2, "ReleaseAddress", json!({"AllocationId": address["AllocationId"]}))
            .await
    }
}

pub(super) struct Nat;

#[async_trait]
impl ResourceType for Nat {
    fn name(&self) -> &'static str {
        "AWS::EC2::NatGateway"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        tag_specifications(&mut properties, "natgateway");
        properties.set("ClientToken", request.token.clone());
        let answer = request.call(EC2, "CreateNatGateway", properties.request()).await?;
        Ok(text(&answer["NatGateway"]["NatGatewayId"]))
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let found =
            one(request, "DescribeNatGateways", json!({"NatGatewayIds": [id]}), "NatGateways")
                .await?;
        let live = found.filter(|gateway| gateway["State"] != "deleted");
        Ok(live.map_or(State::Missing, |gateway| {
            let eni = &gateway["NatGatewayAddresses"][0]["NetworkInterfaceId"];
            State::ready(json!({"NatGatewayId": id, "EniId": eni}))
        }))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        retag(request, id, old, &new).await
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove(EC2, "DeleteNatGateway", json!({"NatGatewayId": id})).await
    }
}
