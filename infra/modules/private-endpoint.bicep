metadata description = 'A private endpoint, with a DNS zone that is made and linked to its network, with one that is there, or with none'

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

@description('Name of the private DNS zone that is made for it and linked to its network. Empty: none is made.')
param zoneName string

@description('Resource id of a private DNS zone that is there already, for its record. Empty: where none is made either, somebody else sees to the record.')
param zoneId string

@description('Resource id of the subnet that the endpoint takes its address from.')
param subnetId string

// The subnet's id without its last two parts.
var networkId = join(take(split(subnetId, '/'), 9), '/')

resource zone 'Microsoft.Network/privateDnsZones@2024-06-01' = if (!empty(zoneName)) {
  name: zoneName
  location: 'global'
  tags: tags
}

resource link 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = if (!empty(zoneName)) {
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

  resource zoneGroup 'privateDnsZoneGroups' = if (!empty(zoneName) || !empty(zoneId)) {
    name: 'default'
    properties: {
      privateDnsZoneConfigs: [
        {
          name: groupId
          properties: {
            privateDnsZoneId: empty(zoneName) ? zoneId : zone.id
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
