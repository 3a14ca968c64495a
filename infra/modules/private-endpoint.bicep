metadata description = 'A private endpoint with its DNS zone, linked to the network'

@description('Name of the private endpoint.')
param name string

@description('Azure region.')
param location string

@description('Tags.')
param tags object

@description('Resource id of what the endpoint leads to.')
param targetId string

@description('Which of its services: blob, queue, table or sites.')
param groupId string

@description('Name of the private DNS zone of that service.')
param zoneName string

@description('Resource id of the virtual network.')
param networkId string

@description('Resource id of the subnet that the endpoint takes its address from.')
param subnetId string

resource zone 'Microsoft.Network/privateDnsZones@2024-06-01' = {
  name: zoneName
  location: 'global'
  tags: tags
}

resource link 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = {
  parent: zone
  name: uniqueString(networkId)
  location: 'global'
  tags: tags
  properties: {
    registrationEnabled: false
    virtualNetwork: {
      id: networkId
    }
  }
}

resource endpoint 'Microsoft.Network/privateEndpoints@2026-03-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    subnet: {
      id: subnetId
    }
    privateLinkServiceConnections: [
      {
        name: groupId
        properties: {
          privateLinkServiceId: targetId
          groupIds: [
            groupId
          ]
        }
      }
    ]
  }

  resource zoneGroup 'privateDnsZoneGroups' = {
    name: 'default'
    properties: {
      privateDnsZoneConfigs: [
        {
          name: groupId
          properties: {
            privateDnsZoneId: zone.id
          }
        }
      ]
    }
    // Whoever waits for this module may resolve the name at once.
    dependsOn: [
      link
    ]
  }
}
