metadata description = 'Virtual network: a subnet that the app leaves through, by one fixed address, and one for private endpoints'

@description('Base of the names.')
param name string

@description('Azure region.')
param location string

@description('Tags.')
param tags object

@description('Address range, /24 or larger.')
param addressPrefix string

var appSubnetName = 'app'
var endpointSubnetName = 'private-endpoints'

// No rule of our own: the default ones let nothing in from the internet and everything out.
resource securityGroup 'Microsoft.Network/networkSecurityGroups@2026-03-01' = {
  name: 'nsg-${name}'
  location: location
  tags: tags
}

// Azure Resource Manager and Application Insights have public endpoints: the way out is explicit, not Azure's default
// outbound access, which new networks no longer have.
resource address 'Microsoft.Network/publicIPAddresses@2026-03-01' = {
  name: 'pip-${name}'
  location: location
  tags: tags
  sku: {
    name: 'Standard'
  }
  properties: {
    publicIPAllocationMethod: 'Static'
    publicIPAddressVersion: 'IPv4'
  }
}

resource gateway 'Microsoft.Network/natGateways@2026-03-01' = {
  name: 'ng-${name}'
  location: location
  tags: tags
  sku: {
    name: 'Standard'
  }
  properties: {
    publicIpAddresses: [
      {
        id: address.id
      }
    ]
  }
}

// The subnets stand in the network itself: a network deployed again without them would try to remove them.
resource network 'Microsoft.Network/virtualNetworks@2026-03-01' = {
  name: 'vnet-${name}'
  location: location
  tags: tags
  properties: {
    addressSpace: {
      addressPrefixes: [
        addressPrefix
      ]
    }
    subnets: [
      {
        name: appSubnetName
        properties: {
          addressPrefix: cidrSubnet(addressPrefix, 26, 0)
          defaultOutboundAccess: false
          delegations: [
            {
              name: 'flex-consumption'
              properties: {
                serviceName: 'Microsoft.App/environments'
              }
            }
          ]
          natGateway: {
            id: gateway.id
          }
          networkSecurityGroup: {
            id: securityGroup.id
          }
        }
      }
      {
        name: endpointSubnetName
        properties: {
          addressPrefix: cidrSubnet(addressPrefix, 27, 2)
          defaultOutboundAccess: false
          networkSecurityGroup: {
            id: securityGroup.id
          }
          privateEndpointNetworkPolicies: 'Disabled'
        }
      }
    ]
  }

  resource appSubnet 'subnets' existing = {
    name: appSubnetName
  }

  resource endpointSubnet 'subnets' existing = {
    name: endpointSubnetName
  }
}

@description('Resource id of the subnet that the app sends from.')
output appSubnetId string = network::appSubnet.id

@description('Resource id of the subnet of the private endpoints.')
output endpointSubnetId string = network::endpointSubnet.id
